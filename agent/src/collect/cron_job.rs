//! What cron and anacron run: the system's tables, those of users, and the scripts of /etc/cron.daily and its like.
//!
//! The key is user and command: that is what a person asks after, and the place in a table means nothing. A new time
//! is then a change of `schedule`; a command that runs at several times, or from several tables, is one item with all of them.

use std::collections::{BTreeMap, BTreeSet};

use trueline_drift::redact::{self, RedactionKey};
use trueline_drift::{FieldName, Fields, ItemKind, Value, text};

use super::texts::{Entry, Links, files, read};
use super::{CollectError, Collector, Listing, Place, command, listing, refusal};

const FILE_LIMIT: u64 = 1024 * 1024;
/// Of a longer command the key has the beginning, and a digest.
const KEY_LIMIT: usize = 256;
/// Variables of one table, and all their bytes: each job is told with all that stand before it.
const VARIABLES_LIMIT: usize = 64;
const VARIABLES_BYTES: usize = 4096;
/// Jobs of one table, many times what the largest known ones have.
const JOBS_LIMIT: usize = 4096;

const SCRIPTS: [(&str, &str); 4] =
    [("/etc/cron.hourly", "@hourly"), ("/etc/cron.daily", "@daily"), ("/etc/cron.weekly", "@weekly"), ("/etc/cron.monthly", "@monthly")];

pub const COLLECTOR: Collector = Collector {
    kind: ItemKind::CronJob,
    sources: &[
        "/etc/anacrontab",
        "/etc/cron.d",
        "/etc/cron.daily",
        "/etc/cron.hourly",
        "/etc/cron.monthly",
        "/etc/cron.weekly",
        "/etc/crontab",
        "/var/spool/cron",
    ],
    poll: None,
    read: read_all,
};

/// How the lines of a table are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Table<'a> {
    /// crontab(5) with a user in each line.
    System,
    /// crontab(5) of one user.
    Of(&'a str),
    /// anacrontab(5).
    Anacron,
}

#[derive(Debug, Default)]
struct Job {
    command: String,
    user: String,
    environment: BTreeSet<String>,
    schedules: BTreeSet<String>,
    secrets: BTreeSet<String>,
    sources: BTreeSet<String>,
}

/// Everything read so far.
struct Found<'a> {
    key: &'a RedactionKey,
    jobs: BTreeMap<String, Job>,
    unreadable: Vec<(String, Fields)>,
    skipped: u64,
}

fn read_all(place: &Place<'_>) -> Result<Listing, CollectError> {
    let mut found = Found::new(place.key);
    for (path, table) in [("/etc/crontab", Table::System), ("/etc/anacrontab", Table::Anacron)] {
        match read(place.root, path.as_bytes(), Links::Followed, FILE_LIMIT) {
            Ok(None) => {}
            Ok(Some(contents)) => found.take(table, path, &contents),
            Err(error) => found.unread("root", path, &refusal::reason(&error)),
        }
    }
    let list = |folder, links| files(place.root, folder, links, FILE_LIMIT).map_err(|error| CollectError::database(folder, &error));
    for entry in list("/etc/cron.d", Links::Followed)? {
        found.table(Table::System, "root", &entry);
    }
    // Users may have tables made here: cron itself follows no link in these.
    for folder in ["/var/spool/cron/crontabs", "/var/spool/cron"] {
        for entry in list(folder, Links::Refused)? {
            found.table(Table::Of(&entry.name), &entry.name, &entry);
        }
    }
    for (folder, schedule) in SCRIPTS {
        for entry in list(folder, Links::Followed)? {
            if entry.metadata.mode & 0o111 != 0 {
                found.job("root", &entry.path, schedule, folder, &[]);
            }
        }
    }
    Ok(found.listing())
}

impl<'a> Found<'a> {
    fn new(key: &'a RedactionKey) -> Self {
        Self { key, jobs: BTreeMap::new(), unreadable: Vec::new(), skipped: 0 }
    }

    fn table(&mut self, table: Table<'_>, user: &str, entry: &Entry) {
        match &entry.text {
            Ok(contents) => self.take(table, &entry.path, contents),
            Err(reason) => self.unread(user, &entry.path, reason),
        }
    }

    /// A table that may hold anything.
    fn unread(&mut self, user: &str, path: &str, reason: &str) {
        let mut fields = Fields::new();
        fields.set(FieldName::known("command"), Value::unreadable(reason));
        fields.set(FieldName::known("schedule"), Value::unreadable(reason));
        fields.set(FieldName::known("source"), Value::text(path));
        fields.set(FieldName::known("user"), Value::text(user));
        self.unreadable.push((format!("{user} {path}"), fields));
    }

    fn take(&mut self, table: Table<'_>, path: &str, contents: &[u8]) {
        let mut environment: BTreeMap<String, String> = BTreeMap::new();
        let user = if let Table::Of(user) = table { user } else { "root" };
        let mut is_too_much = false;
        let mut count = 0;
        for line in contents.split(|byte| *byte == b'\n') {
            let line = line.trim_ascii();
            if line.is_empty() || line[0] == b'#' {
                continue;
            }
            let line = text::printable(&line.iter().map(|byte| if *byte == b'\t' { b' ' } else { *byte }).collect::<Vec<_>>()).into_owned();
            if let Some((name, value)) = variable(&line) {
                let value = redact::setting(name, value, self.key);
                let told = format!("{name}={}", text::bounded(&value, 1024));
                let others = environment.iter().filter(|(other, _)| *other != name);
                let (count, bytes) = others.fold((1, told.len()), |(count, bytes), (_, told)| (count + 1, bytes + told.len()));
                if count <= VARIABLES_LIMIT && bytes <= VARIABLES_BYTES {
                    environment.insert(name.to_owned(), told);
                } else {
                    environment.remove(name);
                    is_too_much = true;
                }
                continue;
            }
            let Some((schedule, runs_as, command)) = job(table, &line) else {
                self.skipped += 1;
                continue;
            };
            count += 1;
            if count > JOBS_LIMIT {
                self.unread(user, path, &format!("it holds more than {JOBS_LIMIT} jobs; the rest is not read"));
                return;
            }
            let environment: Vec<&str> = environment.values().map(String::as_str).collect();
            self.job(runs_as, command, &schedule, path, &environment);
        }
        if is_too_much {
            self.unread(user, path, "it sets more variables than are told");
        }
    }

    fn job(&mut self, user: &str, command: &str, schedule: &str, source: &str, environment: &[&str]) {
        let masked = command::masked(command, self.key);
        let digest = || self.key.digest(command.as_bytes());
        let shown = if masked.len() <= KEY_LIMIT { masked.clone() } else { format!("{} {}", text::bounded(&masked, KEY_LIMIT), digest()) };
        let secret = (masked != command).then(digest);
        let job = self.jobs.entry(format!("{user} {shown}")).or_default();
        job.command = masked;
        job.user = user.to_owned();
        job.schedules.insert(schedule.to_owned());
        job.sources.insert(source.to_owned());
        job.secrets.extend(secret);
        job.environment.extend(environment.iter().map(|variable| (*variable).to_owned()));
    }

    fn listing(self) -> Listing {
        let jobs = self.jobs.into_iter().map(|(key, job)| {
            let mut fields = Fields::new();
            fields.set(FieldName::known("command"), Value::text(&job.command));
            fields.set(FieldName::known("user"), Value::text(&job.user));
            if !job.environment.is_empty() {
                fields.set(FieldName::known("environment"), Value::list(job.environment.into_iter().collect()));
            }
            for (name, texts) in [("schedule", job.schedules), ("secret", job.secrets), ("source", job.sources)] {
                if texts.len() > 1 {
                    fields.set(FieldName::known(name), Value::list(texts.into_iter().collect()));
                } else if let Some(text) = texts.first() {
                    fields.set(FieldName::known(name), Value::text(text));
                }
            }
            (key, fields)
        });
        // First, since of two with one key the first counts: a job may have the path of its own table for a command.
        let entries = self.unreadable.into_iter().chain(jobs).map(|(key, fields)| (text::original(&key).into_owned(), fields));
        listing(ItemKind::CronJob, entries, self.skipped)
    }
}

/// `NAME = value`, quotes around either.
fn variable(line: &str) -> Option<(&str, &str)> {
    let unquoted = |text: &'_ str| -> (usize, usize) {
        let quoted = text.len() >= 2 && ['"', '\''].iter().any(|quote| text.starts_with(*quote) && text.ends_with(*quote));
        if quoted { (1, text.len() - 1) } else { (0, text.len()) }
    };
    let (name, value) = line.split_once('=')?;
    let (name, value) = (name.trim(), value.trim());
    let (start, end) = unquoted(name);
    let name = &name[start..end];
    let (start, end) = unquoted(value);
    let is_name = name.starts_with(|letter: char| letter.is_ascii_alphabetic() || letter == '_')
        && name.chars().all(|letter| letter.is_ascii_alphanumeric() || letter == '_');
    is_name.then_some((name, &value[start..end]))
}

/// Schedule, user and command of a line.
fn job<'a>(table: Table<'a>, line: &'a str) -> Option<(String, &'a str, &'a str)> {
    let word = |line: &'a str| line.split_once(' ').map(|(word, rest)| (word, rest.trim_start()));
    // cronie lets a `-` before the time keep a run out of the log.
    let line = if table == Table::Anacron { line } else { line.strip_prefix('-').unwrap_or(line) };
    let words = match table {
        Table::Anacron => 2,
        _ if line.starts_with('@') => 1,
        _ => 5,
    };
    let mut rest = line;
    let mut schedule = Vec::new();
    for _ in 0..words {
        let (first, after) = word(rest)?;
        if table != Table::Anacron && !first.starts_with(|letter: char| letter.is_ascii_alphanumeric() || "*@~".contains(letter)) {
            return None;
        }
        schedule.push(first);
        rest = after;
    }
    let user = match table {
        Table::Of(user) => user,
        Table::System => {
            let (user, after) = word(rest)?;
            rest = after;
            user
        }
        Table::Anacron => {
            // The name of the job, by which anacron remembers when it ran last.
            rest = word(rest)?.1;
            "root"
        }
    };
    let schedule = schedule.join(" ");
    let schedule = if table == Table::Anacron { format!("anacron {schedule}") } else { schedule };
    (!rest.is_empty()).then_some((schedule, user, rest))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use proptest::prelude::*;

    use super::super::Root;
    use super::*;

    fn shown(found: Found<'_>) -> Vec<String> {
        let listing = found.listing();
        listing.items.iter().map(|(item, reading)| format!("{item} {}", serde_json::to_string(&reading.fields).unwrap())).collect()
    }

    #[test]
    fn jobs_of_every_source_are_told() {
        let folder = tempfile::tempdir().unwrap();
        for (path, text) in [
            ("etc/crontab", "SHELL=/bin/sh\n17 *\t* * *\troot\tcd / && run-parts --report /etc/cron.hourly\n"),
            ("etc/anacrontab", "RANDOM_DELAY=45\n1\t5\tcron.daily\trun-parts /etc/cron.daily\n"),
            ("etc/cron.d/e2scrub_all", "30 3 * * 0 root test -e /run/systemd/system || /usr/sbin/e2scrub_all\n"),
            ("etc/cron.d/.placeholder", "1 1 1 1 1 root no\n"),
            ("etc/cron.daily/logrotate", "#!/bin/sh\n"),
            ("etc/cron.daily/README", "no script\n"),
            ("var/spool/cron/crontabs/alice", "# mine\nMAILTO=\"\"\n@reboot /home/alice/up\n*/5 * * * * /home/alice/up\nnonsense\n"),
        ] {
            let path = folder.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, text).unwrap();
            let mode = if path.ends_with("logrotate") { 0o755 } else { 0o644 };
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        }
        std::os::unix::fs::symlink("/etc/shadow", folder.path().join("var/spool/cron/crontabs/mallory")).unwrap();
        let root = Root::at(folder.path());
        let policy = trueline_drift::watch::WatchPolicy::default();
        let read = read_all(&Place {
            root: &root,
            policy: &policy,
            key: &RedactionKey::new([7; 32]),
            holders: &crate::collect::Holders::here(root.clone()),
            kept: &crate::collect::Kept::default(),
        })
        .unwrap();
        assert_eq!(read.skipped, 1);
        let shown: Vec<_> =
            read.items.iter().map(|(item, reading)| format!("{item} {}", serde_json::to_string(&reading.fields).unwrap())).collect();
        let expected = [
            r#"cron_job:alice /home/alice/up {"command":"/home/alice/up","environment":["MAILTO="],"schedule":["*/5 * * * *","@reboot"],"source":"/var/spool/cron/crontabs/alice","user":"alice"}"#,
            r#"cron_job:mallory /var/spool/cron/crontabs/mallory {"command":{"unreadable":"it is a symlink, not a regular file"},"schedule":{"unreadable":"it is a symlink, not a regular file"},"source":"/var/spool/cron/crontabs/mallory","user":"mallory"}"#,
            r#"cron_job:root /etc/cron.daily/logrotate {"command":"/etc/cron.daily/logrotate","schedule":"@daily","source":"/etc/cron.daily","user":"root"}"#,
            r#"cron_job:root cd / && run-parts --report /etc/cron.hourly {"command":"cd / && run-parts --report /etc/cron.hourly","environment":["SHELL=/bin/sh"],"schedule":"17 * * * *","source":"/etc/crontab","user":"root"}"#,
            r#"cron_job:root run-parts /etc/cron.daily {"command":"run-parts /etc/cron.daily","environment":["RANDOM_DELAY=45"],"schedule":"anacron 1 5","source":"/etc/anacrontab","user":"root"}"#,
            r#"cron_job:root test -e /run/systemd/system || /usr/sbin/e2scrub_all {"command":"test -e /run/systemd/system || /usr/sbin/e2scrub_all","schedule":"30 3 * * 0","source":"/etc/cron.d/e2scrub_all","user":"root"}"#,
        ];
        assert_eq!(shown, expected);
    }

    #[test]
    fn a_secret_in_a_command_is_masked_and_its_change_shows() {
        let key = RedactionKey::new([7; 32]);
        let of = |line: &str| {
            let mut found = Found::new(&key);
            found.take(Table::Of("alice"), "/t", line.as_bytes());
            shown(found)
        };
        let one = of("API_TOKEN=hunter2secret\n0 3 * * * /usr/bin/backup --password hunter2secret\n");
        assert!(one.len() == 1 && !one[0].contains("hunter2"), "{one:?}");
        assert_ne!(one, of("API_TOKEN=hunter2secret\n0 3 * * * /usr/bin/backup --password hunter3secret\n"));
    }

    #[test]
    fn variables_do_not_multiply_with_the_jobs_behind_them() {
        let key = RedactionKey::new([7; 32]);
        let mut found = Found::new(&key);
        let variables: String = (0..200).map(|number| format!("V{number}={}\n", "ab ".repeat(300))).collect();
        let jobs: String = (0..100).map(|number| format!("@daily /bin/job{number}\n")).collect();
        found.take(Table::Of("alice"), "/t", format!("{variables}{jobs}").as_bytes());
        let told: usize = found.jobs.values().flat_map(|job| &job.environment).map(String::len).sum();
        assert!(told <= 100 * VARIABLES_BYTES, "{told}");
        let shown = shown(found);
        assert_eq!(shown.iter().filter(|item| item.contains("it sets more variables than are told")).count(), 1);
        assert_eq!(shown.len(), 101);
    }

    #[test]
    fn a_job_named_like_its_table_does_not_hide_that_the_rest_is_not_read() {
        let key = RedactionKey::new([7; 32]);
        let mut found = Found::new(&key);
        let jobs: String = (0..=JOBS_LIMIT).map(|number| format!("@daily /bin/job{number}\n")).collect();
        found.take(Table::Of("alice"), "/t", format!("@daily /t\n{jobs}").as_bytes());
        assert!(shown(found).iter().any(|item| item.starts_with("cron_job:alice /t {") && item.contains("the rest is not read")));
    }

    proptest! {
        #[test]
        fn hostile_tables_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), text in "(\\*|@|=|\"| |\n|root|é|-){0,60}") {
            let key = RedactionKey::new([7; 32]);
            for table in [Table::System, Table::Of("alice"), Table::Anacron] {
                let mut found = Found::new(&key);
                found.take(table, "/t", &bytes);
                found.take(table, "/t", text.as_bytes());
                found.listing();
            }
        }
    }
}
