//! The schemas of an actor and of a transaction. The domain's own serialisation is the shape; these twins describe it, and
//! tests hold the two together.

use utoipa::ToSchema;

use super::words;

/// Who is behind a change, and how sure that is.
#[derive(Debug, ToSchema)]
#[schema(as = Actor)]
#[expect(dead_code, reason = "describes the domain's actor; never made")]
pub struct ActorShape {
    /// Of the process.
    #[schema(schema_with = words::certainty)]
    certainty: String,
    /// The sensors and sources that spoke.
    via: Option<Vec<String>>,
    process: Option<ProcessShape>,
    /// Nearest first.
    parents: Option<Vec<ProcessShape>>,
    user: Option<UserShape>,
    session: Option<SessionShape>,
    /// The nearest sudo that it runs under.
    sudo: Option<SudoShape>,
    unit: Option<String>,
    slice: Option<String>,
    container: Option<ContainerShape>,
    /// Why the certainty is no higher.
    reason: Option<String>,
}

#[derive(Debug, ToSchema)]
#[schema(as = Process)]
#[expect(dead_code, reason = "describes the domain's process; never made")]
struct ProcessShape {
    pid: u32,
    #[schema(schema_with = words::time, required = false)]
    started_at: Option<String>,
    exe: Option<String>,
    /// Of the executable.
    #[schema(schema_with = words::digest, required = false)]
    sha256: Option<String>,
    /// What the executable interprets.
    script: Option<String>,
    /// With secrets redacted.
    argv: Option<Vec<String>>,
    cwd: Option<String>,
}

#[derive(Debug, ToSchema)]
#[schema(as = User)]
#[expect(dead_code, reason = "describes the domain's user; never made")]
struct UserShape {
    uid: u32,
    euid: Option<u32>,
    /// The user that logged in, kept through su and sudo.
    login_uid: Option<u32>,
    name: Option<String>,
    login_name: Option<String>,
}

#[derive(Debug, ToSchema)]
#[schema(as = Session)]
#[expect(dead_code, reason = "describes the domain's session; never made")]
pub(super) struct SessionShape {
    /// The beginning of the boot's id, and the audit session's number.
    #[schema(example = "3f2a9c01d4e7-42")]
    id: String,
    /// Of what is said of the login.
    #[schema(schema_with = words::certainty)]
    certainty: String,
    #[schema(schema_with = words::session_kind)]
    kind: String,
    /// Who logged in.
    user: Option<String>,
    origin: Option<OriginShape>,
    terminal: Option<String>,
    /// Fingerprint of the key that was let in.
    #[schema(example = "SHA256:Zk3vQ0p7cZ1oV9b1h2m4n6q8s0u2w4y6A8C0E2G4I6k")]
    key: Option<String>,
    #[schema(schema_with = words::time, required = false)]
    began_at: Option<String>,
}

#[derive(Debug, ToSchema)]
#[schema(as = Origin)]
#[expect(dead_code, reason = "describes the domain's origin; never made")]
struct OriginShape {
    #[schema(example = "10.0.4.17")]
    address: String,
    port: Option<u16>,
}

#[derive(Debug, ToSchema)]
#[schema(as = Sudo)]
#[expect(dead_code, reason = "describes the domain's sudo; never made")]
pub(super) struct SudoShape {
    #[schema(schema_with = words::certainty)]
    certainty: String,
    /// Who ran sudo.
    by: Option<String>,
    as_user: Option<String>,
    /// With secrets redacted.
    command: Option<String>,
    terminal: Option<String>,
}

#[derive(Debug, ToSchema)]
#[schema(as = Container)]
#[expect(dead_code, reason = "describes the domain's container; never made")]
struct ContainerShape {
    #[schema(schema_with = words::certainty)]
    certainty: String,
    id: String,
    image: Option<String>,
}

/// A run that made changes together.
#[derive(Debug, ToSchema)]
#[schema(as = Transaction)]
#[expect(dead_code, reason = "describes the domain's transaction; never made")]
pub struct TransactionShape {
    /// The same for every change of the run.
    #[schema(example = "apt-9c41d0e2a7f35b18")]
    id: String,
    #[schema(schema_with = words::transaction_kind)]
    kind: String,
    #[schema(schema_with = words::certainty)]
    certainty: String,
    /// What it ran, in its own terms.
    name: Option<String>,
    /// With secrets redacted.
    command: Option<String>,
    /// The user who asked for it, or the address of the controller that did.
    requested_by: Option<String>,
    #[schema(schema_with = words::time, required = false)]
    began_at: Option<String>,
    /// The run around it.
    #[schema(no_recursion)]
    within: Option<Box<TransactionShape>>,
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::Value;
    use trueline_drift::actor::{Container, Origin, Process, Session, Sha256Digest, Sudo, User};
    use trueline_drift::transaction::{Transaction, TransactionKind};
    use trueline_drift::{Actor, Certainty, Time};
    use utoipa::PartialSchema;

    use super::*;

    fn keys(value: &Value) -> BTreeSet<String> {
        value.as_object().unwrap().keys().cloned().collect()
    }

    fn described<T: PartialSchema>() -> BTreeSet<String> {
        keys(&serde_json::to_value(T::schema()).unwrap()["properties"])
    }

    #[test]
    fn the_schema_names_exactly_the_fields_of_the_domain() {
        let text = || Some("x".to_owned());
        let process = Process {
            pid: 1,
            started_at: Some(Time::from_seconds(1)),
            exe: text(),
            sha256: Some(Sha256Digest([1; 32])),
            script: text(),
            argv: vec!["x".into()],
            cwd: text(),
        };
        let actor = Actor {
            certainty: Certainty::Exact,
            via: vec!["fanotify".into()],
            process: Some(process.clone()),
            parents: vec![process],
            user: Some(User { uid: 0, euid: Some(0), login_uid: Some(1), name: text(), login_name: text() }),
            session: Some(Session {
                user: text(),
                origin: Some(Origin { address: [10, 0, 0, 1].into(), port: Some(22) }),
                terminal: text(),
                key: text(),
                began_at: Some(Time::from_seconds(1)),
                ..Session::bare("1".parse().unwrap())
            }),
            sudo: Some(Sudo { certainty: Certainty::Exact, by: text(), as_user: text(), command: text(), terminal: text() }),
            unit: text(),
            slice: text(),
            container: Some(Container { certainty: Certainty::Exact, id: "c".into(), image: text() }),
            reason: text(),
        };
        let json = serde_json::to_value(actor).unwrap();
        assert_eq!(keys(&json), described::<ActorShape>());
        assert_eq!(keys(&json["process"]), described::<ProcessShape>());
        assert_eq!(keys(&json["user"]), described::<UserShape>());
        assert_eq!(keys(&json["session"]), described::<SessionShape>());
        assert_eq!(keys(&json["session"]["origin"]), described::<OriginShape>());
        assert_eq!(keys(&json["sudo"]), described::<SudoShape>());
        assert_eq!(keys(&json["container"]), described::<ContainerShape>());
    }

    #[test]
    fn the_schema_of_a_transaction_names_exactly_the_fields_of_the_domain() {
        let run = |within| Transaction {
            id: "apt-1".parse().unwrap(),
            kind: TransactionKind::Apt,
            certainty: Certainty::Exact,
            name: Some("x".to_owned()),
            command: Some("x".to_owned()),
            requested_by: Some("x".to_owned()),
            began_at: Some(Time::from_seconds(1)),
            within,
        };
        let json = serde_json::to_value(run(Some(Box::new(run(None))))).unwrap();
        assert_eq!(keys(&json), described::<TransactionShape>());
    }
}
