//! Actors between wire and domain.

use trueline_drift::actor::{Container, Origin, Process, Session, SessionKind, Sha256Digest, Sudo, User};
use trueline_drift::value::LIST_LIMIT;
use trueline_drift::{Actor, Certainty, Time};

use super::{ConvertError, checked, checked_option, missing, moment, numbered};
use crate::v1;

/// Most parents, and most sources, of one actor.
const LINKS_LIMIT: usize = 64;

numbered!(certainty_to_wire, certainty_from_wire, "certainty", Certainty, v1::Certainty, { Exact, Strong, Correlated, Unknown });
numbered!(session_kind_to_wire, session_kind_from_wire, "session kind", SessionKind, v1::SessionKind, {
    Ssh, Console, Su, Cron, Service, Other
});

impl From<Actor> for v1::Actor {
    fn from(actor: Actor) -> Self {
        Self {
            certainty: certainty_to_wire(actor.certainty).into(),
            via: actor.via,
            process: actor.process.map(Into::into),
            parents: actor.parents.into_iter().map(Into::into).collect(),
            user: actor.user.map(|user| v1::User {
                uid: user.uid,
                euid: user.euid,
                login_uid: user.login_uid,
                name: user.name,
                login_name: user.login_name,
            }),
            session: actor.session.map(Into::into),
            sudo: actor.sudo.map(Into::into),
            unit: actor.unit,
            slice: actor.slice,
            container: actor.container.map(|container| v1::Container {
                certainty: certainty_to_wire(container.certainty).into(),
                id: container.id,
                image: container.image,
            }),
            reason: actor.reason,
        }
    }
}

impl TryFrom<v1::Actor> for Actor {
    type Error = ConvertError;

    fn try_from(actor: v1::Actor) -> Result<Self, ConvertError> {
        if actor.parents.len() > LINKS_LIMIT || actor.via.len() > LINKS_LIMIT {
            return Err(ConvertError::TooLong { what: "actor", limit: LINKS_LIMIT });
        }
        Ok(Self {
            certainty: certainty_from_wire(actor.certainty)?,
            via: actor.via.into_iter().map(|via| checked("source", via)).collect::<Result<_, _>>()?,
            process: actor.process.map(TryInto::try_into).transpose()?,
            parents: actor.parents.into_iter().map(TryInto::try_into).collect::<Result<_, _>>()?,
            user: actor.user.map(user).transpose()?,
            session: actor.session.map(TryInto::try_into).transpose()?,
            sudo: actor.sudo.map(TryInto::try_into).transpose()?,
            unit: checked_option("unit", actor.unit)?,
            slice: checked_option("slice", actor.slice)?,
            container: actor.container.map(container).transpose()?,
            reason: checked_option("reason", actor.reason)?,
        })
    }
}

fn user(user: v1::User) -> Result<User, ConvertError> {
    Ok(User {
        uid: user.uid,
        euid: user.euid,
        login_uid: user.login_uid,
        name: checked_option("user", user.name)?,
        login_name: checked_option("user", user.login_name)?,
    })
}

impl From<Sudo> for v1::Sudo {
    fn from(sudo: Sudo) -> Self {
        Self {
            certainty: certainty_to_wire(sudo.certainty).into(),
            by: sudo.by,
            as_user: sudo.as_user,
            command: sudo.command,
            terminal: sudo.terminal,
        }
    }
}

impl TryFrom<v1::Sudo> for Sudo {
    type Error = ConvertError;

    fn try_from(sudo: v1::Sudo) -> Result<Self, ConvertError> {
        Ok(Self {
            certainty: certainty_from_wire(sudo.certainty)?,
            by: checked_option("user", sudo.by)?,
            as_user: checked_option("user", sudo.as_user)?,
            command: checked_option("command", sudo.command)?,
            terminal: checked_option("terminal", sudo.terminal)?,
        })
    }
}

fn container(container: v1::Container) -> Result<Container, ConvertError> {
    if container.id.is_empty() {
        return Err(missing("container"));
    }
    Ok(Container {
        certainty: certainty_from_wire(container.certainty)?,
        id: checked("container", container.id)?,
        image: checked_option("image", container.image)?,
    })
}

impl From<Process> for v1::Process {
    fn from(process: Process) -> Self {
        Self {
            pid: process.pid,
            started_at: process.started_at.map(Time::micros),
            exe: process.exe,
            sha256: process.sha256.map(|digest| digest.0.to_vec().into()),
            script: process.script,
            argv: process.argv,
            cwd: process.cwd,
        }
    }
}

impl TryFrom<v1::Process> for Process {
    type Error = ConvertError;

    fn try_from(process: v1::Process) -> Result<Self, ConvertError> {
        if process.argv.len() > LIST_LIMIT {
            return Err(ConvertError::TooLong { what: "argument list", limit: LIST_LIMIT });
        }
        let digest = |bytes: prost::bytes::Bytes| {
            let length = || ConvertError::Length { what: "executable's digest", bytes: bytes.len(), expected: 32 };
            <[u8; 32]>::try_from(&bytes[..]).map(Sha256Digest).map_err(|_| length())
        };
        Ok(Self {
            pid: process.pid,
            started_at: process.started_at.map(moment),
            exe: checked_option("executable", process.exe)?,
            sha256: process.sha256.map(digest).transpose()?,
            script: checked_option("script", process.script)?,
            argv: process.argv.into_iter().map(|argument| checked("argument", argument)).collect::<Result<_, _>>()?,
            cwd: checked_option("working directory", process.cwd)?,
        })
    }
}

impl From<Session> for v1::Session {
    fn from(session: Session) -> Self {
        Self {
            id: session.id.as_str().to_owned(),
            certainty: certainty_to_wire(session.certainty).into(),
            kind: session_kind_to_wire(session.kind).into(),
            user: session.user,
            address: session.origin.map(|origin| origin.address.to_string()),
            port: session.origin.and_then(|origin| origin.port).map(u32::from),
            terminal: session.terminal,
            key: session.key,
            began_at: session.began_at.map(Time::micros),
        }
    }
}

impl TryFrom<v1::Session> for Session {
    type Error = ConvertError;

    fn try_from(session: v1::Session) -> Result<Self, ConvertError> {
        let origin = |address: String| {
            let malformed = |_| ConvertError::Malformed { what: "session's address" };
            let port = session.port.map(u16::try_from).transpose().map_err(|_| ConvertError::Malformed { what: "session's port" })?;
            Ok::<_, ConvertError>(Origin { address: address.parse().map_err(malformed)?, port })
        };
        Ok(Self {
            id: session.id.parse().map_err(|_| ConvertError::Malformed { what: "session's id" })?,
            certainty: certainty_from_wire(session.certainty)?,
            kind: session_kind_from_wire(session.kind)?,
            user: checked_option("user", session.user)?,
            origin: session.address.map(origin).transpose()?,
            terminal: checked_option("terminal", session.terminal)?,
            key: checked_option("key", session.key)?,
            began_at: session.began_at.map(moment),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole() -> Actor {
        let text = |text: &str| Some(text.to_owned());
        let process = Process {
            started_at: Some(Time::from_seconds(1)),
            exe: text("/usr/bin/python3.11"),
            sha256: Some(Sha256Digest([7; 32])),
            script: text("/usr/bin/unattended-upgrade"),
            argv: vec!["python3".to_owned()],
            cwd: text("/"),
            ..Process::bare(812)
        };
        Actor {
            certainty: Certainty::Exact,
            via: vec!["fanotify".to_owned(), "ebpf".to_owned()],
            parents: vec![process.clone(), Process::bare(1)],
            process: Some(process),
            user: Some(User { uid: 0, euid: Some(0), login_uid: Some(1000), name: text("root"), login_name: text("alice") }),
            session: Some(Session {
                certainty: Certainty::Strong,
                kind: SessionKind::Ssh,
                user: text("alice"),
                origin: Some(Origin { address: "fe80::1".parse().unwrap(), port: Some(51022) }),
                terminal: text("pts/0"),
                key: text("SHA256:x"),
                began_at: Some(Time::from_seconds(2)),
                ..Session::bare("3f2a9c01d4e7-42".parse().unwrap())
            }),
            sudo: Some(Sudo {
                certainty: Certainty::Strong,
                by: text("alice"),
                as_user: text("root"),
                command: text("vi x"),
                terminal: text("pts/0"),
            }),
            unit: text("session-42.scope"),
            slice: text("user-1000.slice"),
            container: Some(Container { certainty: Certainty::Strong, id: "c1".to_owned(), image: text("debian") }),
            reason: text("why"),
        }
    }

    #[test]
    fn an_actor_comes_back_as_it_went() {
        let actor = whole();
        assert_eq!(Actor::try_from(v1::Actor::from(actor.clone())).unwrap(), actor);
    }

    #[test]
    fn what_is_not_what_its_name_says_is_refused() {
        type Damage = fn(&mut v1::Actor);
        let damages: [Damage; 9] = [
            |actor| actor.certainty = 0,
            |actor| actor.certainty = 99,
            |actor| actor.session.as_mut().unwrap().id = "<b>".to_owned(),
            |actor| actor.session.as_mut().unwrap().kind = 0,
            |actor| actor.session.as_mut().unwrap().address = Some("web1".to_owned()),
            |actor| actor.session.as_mut().unwrap().port = Some(65_536),
            |actor| actor.process.as_mut().unwrap().sha256 = Some(vec![1; 31].into()),
            |actor| actor.container.as_mut().unwrap().id = String::new(),
            |actor| actor.sudo.as_mut().unwrap().command = Some("x".repeat(5000)),
        ];
        for (at, damage) in damages.into_iter().enumerate() {
            let mut actor = v1::Actor::from(whole());
            damage(&mut actor);
            assert!(Actor::try_from(actor).is_err(), "{at}");
        }
    }

    /// Written by an agent from before sessions, sudo and containers had shapes of their own.
    #[test]
    fn an_older_agents_actor_is_read_without_what_had_another_shape() {
        use prost::Message;
        let mut old = v1::Actor { certainty: 2, unit: Some("ssh.service".to_owned()), ..v1::Actor::default() }.encode_to_vec();
        for (tag, text) in [(6, &b"\x0a\x0242"[..]), (7, b"vi x"), (9, b"c1")] {
            prost::encoding::bytes::encode(tag, &text.to_vec(), &mut old);
        }
        let actor = Actor::try_from(v1::Actor::decode(&old[..]).unwrap()).unwrap();
        assert_eq!(actor, Actor { certainty: Certainty::Strong, unit: Some("ssh.service".to_owned()), reason: None, ..Actor::unknown("") });
    }
}
