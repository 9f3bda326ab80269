//! The schemas of candidates: twins of the domain's own serialisation, as those of an actor.

use utoipa::ToSchema;

use super::actor::{SessionShape, SudoShape};
use super::words;

/// Who may have made a change that nobody was seen to make: what else went on at that time. Never the actor.
#[derive(Debug, ToSchema)]
#[schema(as = Candidates)]
#[expect(dead_code, reason = "describes the domain's candidates; never made")]
pub struct CandidatesShape {
    /// Best first: the same object before the same time alone, then the nearest.
    #[schema(max_items = 8)]
    offered: Vec<CandidateShape>,
    /// How many others went on at that time.
    more: u32,
}

#[derive(Debug, ToSchema)]
#[schema(as = Candidate)]
#[expect(dead_code, reason = "describes the domain's candidate; never made")]
struct CandidateShape {
    #[schema(schema_with = words::candidate_kind)]
    kind: String,
    /// The login, or the one that su or sudo was run within.
    session: Option<SessionShape>,
    su: Option<SudoShape>,
    sudo: Option<SudoShape>,
    package: Option<PackageEntryShape>,
    #[schema(schema_with = words::time)]
    began_at: String,
    /// Absent while it goes on.
    #[schema(schema_with = words::time, required = false)]
    ended_at: Option<String>,
    /// In what it agrees with the change.
    #[schema(schema_with = words::candidate_match)]
    matched: String,
    /// Between it and the moment when the change was most likely made.
    distance_seconds: u64,
}

/// What a package manager wrote into its log.
#[derive(Debug, ToSchema)]
#[schema(as = PackageEntry)]
#[expect(dead_code, reason = "describes the domain's entry; never made")]
struct PackageEntryShape {
    #[schema(schema_with = words::package_action)]
    action: String,
    #[schema(example = "openssl")]
    name: String,
    architecture: Option<String>,
    /// That it came to; of a removal the one that went.
    version: Option<String>,
    /// That it came from.
    version_before: Option<String>,
    /// The run that it was part of, with secrets redacted.
    command: Option<String>,
    requested_by: Option<String>,
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::Value;
    use trueline_drift::actor::{Session, Sudo};
    use trueline_drift::candidate::{Activity, Candidate, Candidates, Doing, Match, PackageAction, PackageEntry};
    use trueline_drift::{Certainty, Time};
    use utoipa::PartialSchema;

    use super::*;

    fn keys(value: &Value) -> BTreeSet<String> {
        value.as_object().unwrap().keys().cloned().collect()
    }

    fn described<T: PartialSchema>() -> BTreeSet<String> {
        keys(&serde_json::to_value(T::schema()).unwrap()["properties"])
    }

    #[test]
    fn the_schema_of_candidates_names_exactly_the_fields_of_the_domain() {
        let text = || Some("x".to_owned());
        let session = || Session::bare("1".parse().unwrap());
        let step = || Sudo { certainty: Certainty::Correlated, by: None, as_user: None, command: None, terminal: None };
        let entry = PackageEntry {
            action: PackageAction::Install,
            name: "x".to_owned(),
            architecture: text(),
            version: text(),
            version_before: text(),
            command: text(),
            requested_by: text(),
        };
        let doings = [
            Doing::Login { session: session() },
            Doing::Su { session: session(), su: step() },
            Doing::Sudo { session: session(), sudo: step() },
            Doing::Package { entry },
        ];
        let candidate = |what| Candidate {
            activity: Activity { what, began_at: Time::from_seconds(1), ended_at: Some(Time::from_seconds(2)) },
            matched: Match::Time,
            distance_seconds: 1,
        };
        let json = serde_json::to_value(Candidates { offered: doings.map(candidate).to_vec(), more: 1 }).unwrap();
        assert_eq!(keys(&json), described::<CandidatesShape>());
        let offered = json["offered"].as_array().unwrap();
        assert_eq!(offered.iter().flat_map(keys).collect::<BTreeSet<_>>(), described::<CandidateShape>());
        assert_eq!(keys(&offered[3]["package"]), described::<PackageEntryShape>());
        let kinds: Vec<&str> = offered.iter().map(|candidate| candidate["kind"].as_str().unwrap()).collect();
        assert_eq!(kinds, Doing::KINDS);
        let words: Vec<Value> = Match::ALL.map(|matched| serde_json::to_value(matched).unwrap()).to_vec();
        assert_eq!(words, Match::ALL.map(Match::name));
        assert_eq!(PackageAction::ALL.map(|action| serde_json::to_value(action).unwrap()), PackageAction::ALL.map(PackageAction::name));
    }
}
