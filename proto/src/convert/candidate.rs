//! Candidates between wire and domain.

use trueline_drift::Time;
use trueline_drift::candidate::{Activity, Candidate, Candidates, Doing, Match, PackageAction, PackageEntry};

use super::{ConvertError, checked, checked_option, missing, moment, numbered};
use crate::v1;
use crate::v1::candidate::Doing as Wire;

numbered!(match_to_wire, match_from_wire, "match", Match, v1::Match, { ObjectAndTime, Time });
numbered!(action_to_wire, action_from_wire, "package's action", PackageAction, v1::PackageAction, {
    Install, Upgrade, Configure, Remove, Purge
});

pub fn to_wire(candidates: Candidates) -> (Vec<v1::Candidate>, u32) {
    (candidates.offered.into_iter().take(Candidates::LIMIT).map(Into::into).collect(), candidates.more)
}

pub fn from_wire(wire: Vec<v1::Candidate>, more: u32) -> Result<Candidates, ConvertError> {
    if wire.len() > Candidates::LIMIT {
        return Err(ConvertError::TooLong { what: "list of candidates", limit: Candidates::LIMIT });
    }
    Ok(Candidates { offered: wire.into_iter().map(TryInto::try_into).collect::<Result<_, _>>()?, more })
}

impl From<Candidate> for v1::Candidate {
    fn from(candidate: Candidate) -> Self {
        let Candidate { activity, matched, distance_seconds } = candidate;
        let step = |session: trueline_drift::actor::Session, step: trueline_drift::actor::Sudo| v1::Step {
            session: Some(session.into()),
            step: Some(step.into()),
        };
        let doing = match activity.what {
            Doing::Login { session } => Wire::Login(session.into()),
            Doing::Su { session, su } => Wire::Su(step(session, su)),
            Doing::Sudo { session, sudo } => Wire::Sudo(step(session, sudo)),
            Doing::Package { entry } => Wire::Package(v1::PackageEntry {
                action: action_to_wire(entry.action).into(),
                name: entry.name,
                architecture: entry.architecture,
                version: entry.version,
                version_before: entry.version_before,
                command: entry.command,
                requested_by: entry.requested_by,
            }),
        };
        Self {
            doing: Some(doing),
            began_at: activity.began_at.micros(),
            ended_at: activity.ended_at.map(Time::micros),
            matched: match_to_wire(matched).into(),
            distance_seconds,
        }
    }
}

impl TryFrom<v1::Candidate> for Candidate {
    type Error = ConvertError;

    fn try_from(candidate: v1::Candidate) -> Result<Self, ConvertError> {
        let step = |step: v1::Step| {
            let session = step.session.ok_or_else(|| missing("candidate's session"))?.try_into()?;
            Ok::<_, ConvertError>((session, step.step.ok_or_else(|| missing("candidate's step"))?.try_into()?))
        };
        let what = match candidate.doing.ok_or_else(|| missing("candidate"))? {
            Wire::Login(session) => Doing::Login { session: session.try_into()? },
            Wire::Su(wire) => step(wire).map(|(session, su)| Doing::Su { session, su })?,
            Wire::Sudo(wire) => step(wire).map(|(session, sudo)| Doing::Sudo { session, sudo })?,
            Wire::Package(entry) => Doing::Package { entry: package(entry)? },
        };
        let activity = Activity { what, began_at: moment(candidate.began_at), ended_at: candidate.ended_at.map(moment) };
        Ok(Self { activity, matched: match_from_wire(candidate.matched)?, distance_seconds: candidate.distance_seconds })
    }
}

fn package(entry: v1::PackageEntry) -> Result<PackageEntry, ConvertError> {
    if entry.name.is_empty() {
        return Err(missing("package"));
    }
    Ok(PackageEntry {
        action: action_from_wire(entry.action)?,
        name: checked("package", entry.name)?,
        architecture: checked_option("architecture", entry.architecture)?,
        version: checked_option("version", entry.version)?,
        version_before: checked_option("version", entry.version_before)?,
        command: checked_option("command", entry.command)?,
        requested_by: checked_option("user", entry.requested_by)?,
    })
}

#[cfg(test)]
mod tests {
    use trueline_drift::Certainty;
    use trueline_drift::actor::{Session, Sudo};

    use super::*;

    fn whole() -> Candidates {
        let text = |text: &str| Some(text.to_owned());
        let session = || Session { user: text("alice"), ..Session::bare("3f2a9c01d4e7-42".parse().unwrap()) };
        let step =
            || Sudo { certainty: Certainty::Correlated, by: text("alice"), as_user: text("root"), command: text("id"), terminal: None };
        let entry = PackageEntry {
            action: PackageAction::Upgrade,
            name: "openssl".to_owned(),
            architecture: text("amd64"),
            version: text("3.0.2"),
            version_before: text("3.0.1"),
            command: text("apt-get upgrade"),
            requested_by: text("alice (1000)"),
        };
        let doings = [
            Doing::Login { session: session() },
            Doing::Su { session: session(), su: step() },
            Doing::Sudo { session: session(), sudo: step() },
            Doing::Package { entry },
        ];
        let candidate = |(at, what): (i64, Doing)| Candidate {
            activity: Activity { what, began_at: Time::from_seconds(at), ended_at: (at > 0).then(|| Time::from_seconds(9)) },
            matched: if at > 1 { Match::ObjectAndTime } else { Match::Time },
            distance_seconds: at.unsigned_abs(),
        };
        Candidates { offered: (0..).zip(doings).map(candidate).collect(), more: 3 }
    }

    fn back((wire, more): (Vec<v1::Candidate>, u32)) -> Result<Candidates, ConvertError> {
        from_wire(wire, more)
    }

    #[test]
    fn candidates_come_back_as_they_went() {
        assert_eq!(back(to_wire(whole())).unwrap(), whole());
        assert_eq!(back(to_wire(Candidates::default())).unwrap(), Candidates::default());
    }

    #[test]
    fn more_than_are_offered_and_what_is_not_what_it_says_is_refused() {
        let (wire, _) = to_wire(whole());
        assert!(matches!(from_wire([&wire[..], &wire[..], &wire[..]].concat(), 0), Err(ConvertError::TooLong { .. })));
        type Damage = fn(&mut v1::Candidate);
        let damages: [(usize, Damage); 6] = [
            (0, |candidate| candidate.doing = None),
            (0, |candidate| candidate.matched = 0),
            (0, |candidate| candidate.matched = 99),
            (1, |candidate| candidate.doing = Some(Wire::Su(v1::Step::default()))),
            (3, |candidate| candidate.doing = Some(Wire::Package(v1::PackageEntry { action: 1, ..v1::PackageEntry::default() }))),
            (3, |candidate| {
                let Some(Wire::Package(entry)) = &mut candidate.doing else { panic!("no package") };
                entry.version = Some("x".repeat(5000));
            }),
        ];
        for (case, (at, damage)) in damages.into_iter().enumerate() {
            let (mut wire, more) = to_wire(whole());
            damage(&mut wire[at]);
            assert!(from_wire(wire, more).is_err(), "{case}");
        }
    }
}
