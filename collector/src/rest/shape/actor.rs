//! The schema of an actor. The domain's own serialisation is the shape; this twin describes it, and
//! a test holds the two together.

use utoipa::ToSchema;

use super::words;

/// Who is behind a change, and how sure that is.
#[derive(Debug, ToSchema)]
#[schema(as = Actor)]
#[expect(dead_code, reason = "describes the domain's actor; never made")]
pub struct ActorShape {
    #[schema(schema_with = words::certainty)]
    certainty: String,
    /// The sensors and sources that spoke.
    via: Option<Vec<String>>,
    process: Option<ProcessShape>,
    /// Nearest first.
    parents: Option<Vec<ProcessShape>>,
    user: Option<UserShape>,
    session: Option<SessionShape>,
    /// The command that was given to sudo.
    sudo: Option<String>,
    unit: Option<String>,
    container: Option<String>,
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
struct SessionShape {
    id: String,
    origin: Option<String>,
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::Value;
    use trueline_drift::Actor;
    use trueline_drift::actor::{Process, Session, User};
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
        let process =
            Process { pid: 1, started_at: Some(trueline_drift::Time::from_seconds(1)), exe: text(), argv: vec!["x".into()], cwd: text() };
        let actor = Actor {
            certainty: trueline_drift::Certainty::Exact,
            via: vec!["fanotify".into()],
            process: Some(process.clone()),
            parents: vec![process],
            user: Some(User { uid: 0, euid: Some(0), login_uid: Some(1), name: text(), login_name: text() }),
            session: Some(Session { id: "1".into(), origin: text() }),
            sudo: text(),
            unit: text(),
            container: text(),
            reason: text(),
        };
        let json = serde_json::to_value(actor).unwrap();
        assert_eq!(keys(&json), described::<ActorShape>());
        assert_eq!(keys(&json["process"]), described::<ProcessShape>());
        assert_eq!(keys(&json["user"]), described::<UserShape>());
        assert_eq!(keys(&json["session"]), described::<SessionShape>());
    }
}
