//! Runs that made changes, as items: what was known of one when it was first seen, and what its tool says of it in a record of its
//! own once it has ended.
//!
//! Invariant: a record is read only if it is a regular file that belongs to the owner of the host's root folder and nobody else may
//! write to, with no link on the way, and only so much of it. What cannot be read is left out: the run stays as it was seen.

use std::io;

use trueline_drift::actor::Process;
use trueline_drift::transaction::{Outcome, TransactionKind, Zone, entries, of_run, summary};
use trueline_drift::{Actor, Certainty, FieldName, Fields, ItemId, ItemKey, ItemKind, Time, Transaction, Value};

use super::Root;
use crate::kernel::file::{EntryType, Pinned};

pub const ENDED_AT: FieldName = FieldName::known("ended_at");
pub const MODULES: FieldName = FieldName::known("modules");

const HISTORY: &str = "/var/log/apt/history.log";
/// Of its end.
const HISTORY_BYTES: u64 = 512 * 1024;
/// The summaries of Puppet's last run, as its vendor and distributions place them.
const SUMMARIES: [&str; 6] = [
    "/opt/puppetlabs/puppet/public/last_run_summary.yaml",
    "/opt/puppetlabs/puppet/cache/state/last_run_summary.yaml",
    "/var/cache/puppet/public/last_run_summary.yaml",
    "/var/cache/puppet/state/last_run_summary.yaml",
    "/var/lib/puppet/public/last_run_summary.yaml",
    "/var/lib/puppet/state/last_run_summary.yaml",
];
const SUMMARY_BYTES: u64 = 64 * 1024;
const ZONE: &str = "/etc/localtime";
const ZONE_BYTES: u64 = 64 * 1024;
/// A summary counts in seconds.
const SECOND: i64 = 1_000_000;

pub fn item(run: &Transaction) -> Option<ItemId> {
    Some(ItemId::new(ItemKind::Run, ItemKey::from_text(run.id.as_str()).ok()?))
}

/// What is known of a run from a change that it made.
pub fn fields(run: &Transaction, leader: Option<&Process>, whole: &Actor) -> Fields {
    let mut fields = Fields::new();
    let mut set = |name, value: Option<String>| {
        if let Some(value) = value.filter(|value| !value.is_empty()) {
            fields.set(FieldName::known(name), Value::text(&value));
        }
    };
    set("tool", Some(run.kind.name().to_owned()));
    set("certainty", Some(run.certainty.name().to_owned()));
    set("name", run.name.clone().filter(|_| run.kind != TransactionKind::Ansible));
    set("command", run.command.clone().filter(|_| run.kind != TransactionKind::Ansible));
    set("requested_by", run.requested_by.clone());
    set("began_at", run.began_at.map(|at| at.to_string()));
    set("within", run.within.as_ref().map(|within| within.id.to_string()));
    if run.kind == TransactionKind::Ansible {
        let session = whole.session.as_ref().filter(|session| session.certainty <= Certainty::Strong);
        set("controller", session.and_then(|session| session.origin).map(|origin| origin.address.to_string()));
        if let Some(module) = &run.name {
            fields.set(MODULES, Value::list(vec![module.clone()]));
        }
    }
    if let Some(leader) = leader {
        fields.set(FieldName::known("pid"), Value::Integer(i64::from(leader.pid)));
    }
    fields
}

/// One that ended, with what its tool says of it. `root` is absent where nothing it says could be told from what another run says.
pub fn ended(mut fields: Fields, noticed_at: Time, root: Option<&Root>) -> Fields {
    let told = root.and_then(|root| match text(&fields, "tool").as_deref() {
        Some("apt" | "unattended_upgrades") => of_apt(&fields, noticed_at, root),
        Some("puppet") => of_puppet(&fields, noticed_at, root),
        _ => None,
    });
    // In whole seconds, and in the hour that a clock was put back over perhaps of the hour before.
    let began_at = time(&fields, "began_at");
    let ended_at = told.as_ref().and_then(|told| told.ended_at).map(|at| began_at.map_or(at, |began_at| at.max(began_at)));
    let ended_at = ended_at.map_or(noticed_at, |at| at.min(noticed_at));
    fields.set(ENDED_AT, Value::text(&ended_at.to_string()));
    let Some(told) = told else { return fields };
    let mut set = |name, value: Option<&str>| {
        if let Some(value) = value.filter(|value| !value.is_empty()) {
            fields.set(FieldName::known(name), Value::text(value));
        }
    };
    set("record", Some(told.record));
    set("result", told.outcome.map(Outcome::name));
    set("error", told.error.as_deref());
    set("requested_by_record", told.requested_by.as_deref());
    set("catalogue_version", told.catalogue_version.as_deref());
    if !told.packages.is_empty() {
        fields.set(FieldName::known("packages"), Value::list(told.packages));
    }
    fields
}

/// What a tool says of its run.
#[derive(Debug, Default)]
struct Told {
    record: &'static str,
    ended_at: Option<Time>,
    outcome: Option<Outcome>,
    error: Option<String>,
    requested_by: Option<String>,
    catalogue_version: Option<String>,
    packages: Vec<String>,
}

fn of_apt(fields: &Fields, until: Time, root: &Root) -> Option<Told> {
    let (command, began_at) = (text(fields, "command")?, time(fields, "began_at")?);
    let log = own(root, HISTORY, HISTORY_BYTES, Part::End)?;
    // A host without this file keeps UTC.
    let zone = match root.read(ZONE, ZONE_BYTES).ok()? {
        Some(bytes) => Zone::from_tzif(&bytes)?,
        None => Zone::UTC,
    };
    let history = of_run(&entries(&log, &zone), &command, began_at, until)?;
    Some(Told {
        record: HISTORY,
        ended_at: history.ended_at,
        outcome: history.outcome(),
        error: history.error,
        requested_by: history.requested_by,
        packages: history.packages,
        ..Told::default()
    })
}

fn of_puppet(fields: &Fields, until: Time, root: &Root) -> Option<Told> {
    let began_at = time(fields, "began_at")?;
    let is_in_time = |at: Time| at.plus_micros(SECOND) > began_at && at <= until;
    SUMMARIES.into_iter().find_map(|record| {
        let summary = summary(&own(root, record, SUMMARY_BYTES, Part::Whole)?).filter(|summary| is_in_time(summary.ended_at))?;
        Some(Told { record, outcome: summary.outcome, catalogue_version: summary.catalogue_version, ..Told::default() })
    })
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    /// More than the limit is not read at all.
    Whole,
    End,
}

fn own(root: &Root, path: &str, limit: u64, part: Part) -> Option<Vec<u8>> {
    read(root, path, limit, part).unwrap_or_else(|error| {
        if error.kind() != io::ErrorKind::NotFound {
            tracing::debug!(path, %error, "what a run says of itself could not be read");
        }
        None
    })
}

fn read(root: &Root, path: &str, limit: u64, part: Part) -> io::Result<Option<Vec<u8>>> {
    use std::os::unix::ffi::OsStrExt;
    let owner = Pinned::follow(&root.path("/"))?.metadata.uid;
    let pinned = Pinned::open(root.path(path).as_os_str().as_bytes())?;
    let metadata = pinned.metadata;
    let is_sound = metadata.entry_type == EntryType::File && metadata.uid == owner && metadata.mode & 0o022 == 0;
    if !is_sound || (part == Part::Whole && metadata.size > limit) {
        return Ok(None);
    }
    let contents = pinned.contents()?;
    let mut at = metadata.size.saturating_sub(limit);
    let mut bytes = vec![0; usize::try_from(metadata.size.min(limit)).unwrap_or(0)];
    let mut filled = 0;
    while filled < bytes.len() {
        match contents.read_at(&mut bytes[filled..], at)? {
            0 => break,
            read => (filled, at) = (filled + read, at + read as u64),
        }
    }
    bytes.truncate(filled);
    Ok(Some(bytes))
}

fn text(fields: &Fields, name: &str) -> Option<String> {
    match fields.value(name)? {
        Value::Text(text) => Some(text.clone()),
        _ => None,
    }
}

pub fn time(fields: &Fields, name: &str) -> Option<Time> {
    text(fields, name)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::path::Path;

    use trueline_drift::actor::{Origin, Session};
    use trueline_drift::baseline::BaselineDocument;

    use super::*;

    const LOG: &str = "\nStart-Date: 2026-02-12  10:30:02\nCommandline: apt-get install x\nRequested-By: alice (1000)\n\
        Upgrade: x:amd64 (1, 2)\nEnd-Date: 2026-02-12  10:30:04\n";
    const SUMMARY: &str = "---\nversion:\n  config: 1770892201\nresources:\n  changed: 2\n  failed: 0\ntime:\n  last_run: 1770892202\n";

    fn at(text: &str) -> Time {
        text.parse().unwrap()
    }

    fn run(kind: TransactionKind, name: &str, command: &str) -> Transaction {
        Transaction {
            id: format!("{}-9c41d0e2a7f35b18", kind.name()).parse().unwrap(),
            kind,
            certainty: Certainty::Exact,
            name: Some(name.to_owned()),
            command: Some(command.to_owned()),
            requested_by: Some("alice".to_owned()),
            began_at: Some(at("2026-02-12T10:30:00Z")),
            within: None,
        }
    }

    fn shown(run: &Transaction, fields: &Fields) -> String {
        let document = serde_json::json!({ "name": "n", "items": { item(run).unwrap().to_string(): fields } });
        BaselineDocument::parse("n.yaml", &document.to_string()).unwrap();
        serde_json::to_string(fields).unwrap()
    }

    fn write(root: &Path, path: &str, text: &str) {
        let place = root.join(path.trim_start_matches('/'));
        std::fs::create_dir_all(place.parent().unwrap()).unwrap();
        std::fs::write(&place, text).unwrap();
        std::fs::set_permissions(&place, PermissionsExt::from_mode(0o644)).unwrap();
    }

    #[test]
    fn a_run_is_an_item_of_the_fields_that_a_baseline_knows() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().canonicalize().unwrap();
        let root = Root::at(&folder);
        write(&folder, HISTORY, LOG);
        write(&folder, SUMMARIES[1], SUMMARY);
        let now = at("2026-02-12T10:31:00Z");
        let apt = run(TransactionKind::Apt, "install", "apt-get install x");
        let leader = Process::bare(812);
        let puppet = run(TransactionKind::Puppet, "apply", "puppet apply site.pp");
        let origin = Some(Origin { address: "10.0.4.9".parse().unwrap(), port: Some(51022) });
        let session = Session { certainty: Certainty::Strong, origin, ..Session::bare("3f2a9c01d4e7-4".parse().unwrap()) };
        let over_ssh = Actor { session: Some(session), ..Actor::unknown("") };
        let ansible = Transaction { within: Some(Box::new(apt.clone())), ..run(TransactionKind::Ansible, "copy", "python3 x") };
        let of = |run: &Transaction, actor: &Actor| ended(fields(run, Some(&leader), actor), now, Some(&root));
        let nobody = Actor::unknown("");
        let lines = [shown(&apt, &of(&apt, &nobody)), shown(&puppet, &of(&puppet, &nobody)), shown(&ansible, &of(&ansible, &over_ssh))];
        insta::assert_snapshot!(lines.join("\n"), @r#"
        {"began_at":"2026-02-12T10:30:00.000000Z","certainty":"exact","command":"apt-get install x","ended_at":"2026-02-12T10:30:04.000000Z","name":"install","packages":["upgrade x:amd64 1 -> 2"],"pid":812,"record":"/var/log/apt/history.log","requested_by":"alice","requested_by_record":"alice (1000)","result":"succeeded","tool":"apt"}
        {"began_at":"2026-02-12T10:30:00.000000Z","catalogue_version":"1770892201","certainty":"exact","command":"puppet apply site.pp","ended_at":"2026-02-12T10:31:00.000000Z","name":"apply","pid":812,"record":"/opt/puppetlabs/puppet/cache/state/last_run_summary.yaml","requested_by":"alice","result":"changed","tool":"puppet"}
        {"began_at":"2026-02-12T10:30:00.000000Z","certainty":"exact","controller":"10.0.4.9","ended_at":"2026-02-12T10:31:00.000000Z","modules":["copy"],"pid":812,"requested_by":"alice","tool":"ansible","within":"apt-9c41d0e2a7f35b18"}
        "#);
    }

    #[test]
    fn what_another_may_have_written_is_not_believed() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().canonicalize().unwrap();
        let root = Root::at(&folder);
        let now = at("2026-02-12T10:31:00Z");
        let apt = run(TransactionKind::Apt, "install", "apt-get install x");
        let has_record = || ended(fields(&apt, None, &Actor::unknown("")), now, Some(&root)).value("record").is_some();
        assert!(!has_record(), "there is none");
        write(&folder, HISTORY, LOG);
        assert!(has_record());
        let place = folder.join("var/log/apt/history.log");
        std::fs::set_permissions(&place, PermissionsExt::from_mode(0o664)).unwrap();
        assert!(!has_record(), "a group may write to it");
        std::fs::rename(&place, folder.join("elsewhere")).unwrap();
        std::fs::set_permissions(folder.join("elsewhere"), PermissionsExt::from_mode(0o644)).unwrap();
        symlink(folder.join("elsewhere"), &place).unwrap();
        assert!(!has_record(), "it is a link");
        std::fs::remove_file(&place).unwrap();
        nix::unistd::mkfifo(&place, nix::sys::stat::Mode::S_IRUSR).unwrap();
        assert!(!has_record(), "it is a FIFO");
        std::fs::remove_file(&place).unwrap();
        // Of a long one the end is read, in the host's own time.
        write(&folder, HISTORY, &format!("{}{LOG}", "x".repeat(2 << 20)));
        assert!(has_record());
        write(&folder, ZONE, "no zone");
        assert!(!has_record(), "nobody knows when it was");
    }
}
