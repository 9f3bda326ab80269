//! What keeps the host's clock: each service for it by its configuration, with what that includes.
//!
//! Whether the clock is in step now is not told: the kernel's word on it comes and goes with the network.
//! Invariant: of one configuration at most [`FILES_LIMIT`] files are read, whatever includes what.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use trueline_drift::pattern::Pattern;
use trueline_drift::{FieldName, Fields, ItemKind, Value, redact, text};

use super::{CollectError, Collector, Listing, Root, folder, listing, refusal};

const FILE_LIMIT: u64 = 256 * 1024;
const FILES_LIMIT: usize = 64;
const ENTRIES_LIMIT: usize = 4096;
/// Lines that include something: each may list a folder.
const INCLUDES_LIMIT: usize = 256;
const DEPTH: usize = 8;
/// Of servers, options and so on, each.
const LINES_LIMIT: usize = 512;

/// Files may be included from anywhere, as those that a DHCP client writes beneath /run: no event tells of them here.
const POLL: Duration = Duration::from_secs(60);

const TIMESYNCD: &str = "timesyncd.conf";
/// In the order of priority.
const TIMESYNCD_FOLDERS: &[&str] = &["/etc/systemd", "/run/systemd", "/usr/local/lib/systemd", "/usr/lib/systemd"];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Language {
    Chrony,
    Ntp,
    OpenNtpd,
}

const SERVICES: &[(&str, &str, Language)] = &[
    ("chrony", "/etc/chrony/chrony.conf", Language::Chrony),
    ("chrony", "/etc/chrony.conf", Language::Chrony),
    ("ntp", "/etc/ntp.conf", Language::Ntp),
    ("ntpsec", "/etc/ntpsec/ntp.conf", Language::Ntp),
    ("openntpd", "/etc/openntpd/ntpd.conf", Language::OpenNtpd),
    ("openntpd", "/etc/ntpd.conf", Language::OpenNtpd),
];

pub const COLLECTOR: Collector = Collector {
    kind: ItemKind::TimeSync,
    sources: &[
        "/etc/chrony",
        "/etc/chrony.conf",
        "/etc/chrony.d",
        "/etc/ntp.conf",
        "/etc/ntpsec",
        "/etc/openntpd",
        "/etc/ntpd.conf",
        "/etc/systemd/timesyncd.conf",
        "/etc/systemd/timesyncd.conf.d",
    ],
    poll: Some(POLL),
    read: |place| read_all(place.root),
};

fn read_all(root: &Root) -> Result<Listing, CollectError> {
    let mut found = Vec::new();
    let mut seen = BTreeSet::new();
    for (service, path, language) in SERVICES {
        // Of two places the first that is there counts.
        if seen.contains(service) {
            continue;
        }
        let mut reader = Reader { root, language: *language, files: Vec::new(), includes: 0, config: Config::default() };
        reader.take_file(path, DEPTH)?;
        if *service == "ntpsec" && !reader.files.is_empty() {
            for path in matching(root, "/etc/ntpsec/ntp.d/*.conf")? {
                reader.take_file(&path, DEPTH)?;
            }
        }
        if !reader.files.is_empty() {
            seen.insert(service);
            found.push((service.as_bytes().to_vec(), reader.config.fields(reader.files)));
        }
    }
    if let Some(fields) = timesyncd(root)? {
        found.push((b"systemd-timesyncd".to_vec(), fields));
    }
    Ok(listing(ItemKind::TimeSync, found, 0))
}

fn timesyncd(root: &Root) -> Result<Option<Fields>, CollectError> {
    let (mut files, mut config) = (Vec::new(), Config::default());
    for top in TIMESYNCD_FOLDERS {
        let path = format!("{top}/{TIMESYNCD}");
        if let Some(bytes) = read(root, &path)? {
            config.take_timesyncd(&bytes);
            files.push(path);
            break;
        }
    }
    // By file name, wherever it lies; of one name the first folder's counts.
    let mut dropins = BTreeMap::new();
    for top in TIMESYNCD_FOLDERS {
        for path in matching(root, &format!("{top}/{TIMESYNCD}.d/*.conf"))? {
            dropins.entry(path.rsplit('/').next().unwrap_or_default().to_owned()).or_insert(path);
        }
    }
    for path in dropins.into_values().take(FILES_LIMIT) {
        if let Some(bytes) = read(root, &path)? {
            config.take_timesyncd(&bytes);
            files.push(path);
        }
    }
    Ok((!files.is_empty()).then(|| config.fields(files)))
}

fn read(root: &Root, path: &str) -> Result<Option<Vec<u8>>, CollectError> {
    root.read(path, FILE_LIMIT).map_err(|error| CollectError::database(text::printable(path.as_bytes()), &error))
}

/// The files that a path with `*` in its last part stands for, sorted; without one, the path itself.
fn matching(root: &Root, pattern: &str) -> Result<Vec<String>, CollectError> {
    let is_plain = pattern.starts_with('/') && !pattern.split('/').any(|part| part == "..") && !pattern.contains('\0');
    let Some((folder, last)) = pattern.rsplit_once('/').filter(|(folder, _)| is_plain && !folder.contains('*')) else {
        return Ok(Vec::new());
    };
    if !last.contains('*') {
        return Ok(vec![pattern.to_owned()]);
    }
    let names = folder::names(root, folder, ENTRIES_LIMIT).map_err(|error| CollectError::Database {
        subject: text::printable(folder.as_bytes()).into_owned(),
        reason: refusal::reason(&error),
    })?;
    let last = Pattern::new(last);
    let is_meant = |name: &str| !name.starts_with('.') && last.matches(name);
    let names = names.iter().filter(|(name, _)| std::str::from_utf8(name).is_ok_and(is_meant));
    Ok(names.filter_map(|(name, _)| folder::beneath(folder, name)).collect())
}

struct Reader<'a> {
    root: &'a Root,
    language: Language,
    files: Vec<String>,
    includes: usize,
    config: Config,
}

impl Reader<'_> {
    fn take_file(&mut self, path: &str, depth: usize) -> Result<(), CollectError> {
        let is_known = self.files.iter().any(|file| file == path);
        if depth == 0 || is_known || self.files.len() >= FILES_LIMIT {
            return Ok(());
        }
        let Some(bytes) = read(self.root, path)? else { return Ok(()) };
        self.files.push(path.to_owned());
        for line in lines(&bytes, self.language) {
            for path in self.included(&line)? {
                self.take_file(&path, depth - 1)?;
            }
            self.config.take(&line, self.language);
        }
        Ok(())
    }

    fn included(&mut self, line: &[String]) -> Result<Vec<String>, CollectError> {
        let Some((directive, words)) = line.split_first() else { return Ok(Vec::new()) };
        let directive = directive.to_ascii_lowercase();
        if matches!(directive.as_str(), "include" | "includefile" | "confdir" | "sourcedir") {
            self.includes += 1;
            if self.includes > INCLUDES_LIMIT {
                return Ok(Vec::new());
            }
        }
        match (self.language, directive.as_str(), words) {
            (Language::Chrony, "include", [pattern, ..]) | (Language::Ntp, "includefile", [pattern, ..]) => matching(self.root, pattern),
            (Language::Chrony, directive @ ("confdir" | "sourcedir"), folders) => {
                let suffix = if directive == "confdir" { "conf" } else { "sources" };
                let mut files = BTreeMap::new();
                for folder in folders {
                    for path in matching(self.root, &format!("{}/*.{suffix}", folder.trim_end_matches('/')))? {
                        files.entry(path.rsplit('/').next().unwrap_or_default().to_owned()).or_insert(path);
                    }
                }
                Ok(files.into_values().collect())
            }
            _ => Ok(Vec::new()),
        }
    }
}

/// The words of each line that says something.
fn lines(bytes: &[u8], language: Language) -> impl Iterator<Item = Vec<String>> {
    bytes.split(|byte| *byte == b'\n').filter_map(move |line| {
        let line = line.trim_ascii();
        let is_comment = match language {
            Language::Chrony => matches!(line.first(), Some(b'#' | b'!' | b';' | b'%')),
            Language::Ntp | Language::OpenNtpd => line.first() == Some(&b'#'),
        };
        if is_comment || line.is_empty() {
            return None;
        }
        // To chrony a sign within a line begins no comment.
        let end = line.iter().position(|byte| *byte == b'#').filter(|_| language != Language::Chrony).unwrap_or(line.len());
        let words = line[..end].split(u8::is_ascii_whitespace).filter(|word| !word.is_empty());
        Some(words.map(|word| text::printable(word).into_owned()).collect())
    })
}

/// What a configuration comes to.
#[derive(Debug, Default)]
struct Config {
    servers: Vec<String>,
    pools: Vec<String>,
    peers: Vec<String>,
    fallback: Vec<String>,
    options: BTreeSet<String>,
}

impl Config {
    fn take(&mut self, line: &[String], language: Language) {
        let Some((directive, rest)) = line.split_first() else { return };
        let directive = if language == Language::OpenNtpd { directive.clone() } else { directive.to_ascii_lowercase() };
        let sources = match (language, directive.as_str()) {
            (Language::OpenNtpd, "servers") | (Language::Chrony | Language::Ntp, "pool") => Some(&mut self.pools),
            (_, "server") => Some(&mut self.servers),
            (Language::Chrony | Language::Ntp, "peer") => Some(&mut self.peers),
            _ => None,
        };
        if let Some(sources) = sources {
            if sources.len() < LINES_LIMIT {
                sources.push(redact::free_text(&rest.join(" ")).into_owned());
            }
            return;
        }
        let matters = match language {
            Language::Chrony => CHRONY_OPTIONS,
            Language::Ntp => NTP_OPTIONS,
            Language::OpenNtpd => OPENNTPD_OPTIONS,
        };
        if matters.contains(&directive.as_str()) && self.options.len() < LINES_LIMIT {
            let option = std::iter::once(&directive).chain(rest).map(String::as_str).collect::<Vec<_>>().join(" ");
            self.options.insert(redact::free_text(&option).into_owned());
        }
    }

    /// An empty list takes back what was named before, any other adds to it; of another key the last counts.
    fn take_timesyncd(&mut self, bytes: &[u8]) {
        let mut inside = false;
        for line in bytes.split(|byte| *byte == b'\n') {
            let line = line.trim_ascii();
            if line.starts_with(b"[") {
                inside = line == b"[Time]";
                continue;
            }
            let is_comment = matches!(line.first(), Some(b'#' | b';'));
            let Some(equals) = line.iter().position(|byte| *byte == b'=').filter(|_| inside && !is_comment) else { continue };
            let key = text::printable(line[..equals].trim_ascii());
            let value = text::printable(line[equals + 1..].trim_ascii());
            let servers = match &*key {
                "NTP" | "Servers" => &mut self.servers,
                "FallbackNTP" => &mut self.fallback,
                _ => {
                    let is_new = |option: &String| option.split('=').next() != Some(&*key);
                    if TIMESYNCD_OPTIONS.contains(&&*key) {
                        self.options.retain(is_new);
                        if !value.is_empty() {
                            self.options.insert(format!("{key}={value}"));
                        }
                    }
                    continue;
                }
            };
            if value.is_empty() {
                servers.clear();
            }
            for server in value.split_ascii_whitespace() {
                if servers.len() < LINES_LIMIT && !servers.iter().any(|known| known == server) {
                    servers.push(server.to_owned());
                }
            }
        }
    }

    fn fields(self, files: Vec<String>) -> Fields {
        let files: Vec<_> = files.iter().map(|path| text::printable(path.as_bytes()).into_owned()).collect();
        let mut fields = Fields::new();
        for (name, texts) in [
            ("fallback", self.fallback),
            ("files", files),
            ("options", self.options.into_iter().collect()),
            ("peers", self.peers),
            ("pools", self.pools),
            ("servers", self.servers),
        ] {
            if !texts.is_empty() {
                fields.set(FieldName::known(name), Value::list(texts));
            }
        }
        fields
    }
}

/// Whether and how far the clock may be set, who may ask or command, and what a time must be proved by.
const CHRONY_OPTIONS: &[&str] = &[
    "acquisitionport",
    "allow",
    "authselectmode",
    "bindacqaddress",
    "bindaddress",
    "bindcmdaddress",
    "cmdallow",
    "cmddeny",
    "cmdport",
    "deny",
    "initstepslew",
    "keyfile",
    "leapsecmode",
    "leapsectz",
    "local",
    "makestep",
    "manual",
    "maxchange",
    "maxdistance",
    "minsources",
    "nocerttimecheck",
    "nosystemcert",
    "ntsservercert",
    "ntsserverkey",
    "ntstrustedcerts",
    "port",
    "refclock",
    "rtcsync",
    "smoothtime",
    "user",
];

/// Not `crypto`, which can name a password.
const NTP_OPTIONS: &[&str] = &[
    "broadcast",
    "broadcastclient",
    "disable",
    "enable",
    "fudge",
    "interface",
    "keys",
    "listen",
    "nts",
    "refclock",
    "restrict",
    "tinker",
    "tos",
    "trustedkey",
];

const OPENNTPD_OPTIONS: &[&str] = &["constraint", "constraints", "listen", "query", "sensor"];

const TIMESYNCD_OPTIONS: &[&str] =
    &["ConnectionRetrySec", "PollIntervalMaxSec", "PollIntervalMinSec", "RootDistanceMaxSec", "SaveIntervalSec"];

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn shown(folder: &tempfile::TempDir) -> Vec<String> {
        let listing = read_all(&Root::at(folder.path())).unwrap();
        listing.items.iter().map(|(item, reading)| format!("{item} {}", serde_json::to_string(&reading.fields).unwrap())).collect()
    }

    fn write(folder: &tempfile::TempDir, path: &str, text: &str) {
        let path = folder.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    /// As Debian ships it.
    #[test]
    fn chrony_is_told_with_what_it_includes() {
        let folder = tempfile::tempdir().unwrap();
        assert!(shown(&folder).is_empty());
        write(
            &folder,
            "etc/chrony/chrony.conf",
            "# Welcome\nconfdir /etc/chrony/conf.d\n! old\npool 2.debian.pool.ntp.org iburst\nsourcedir /run/chrony-dhcp\nsourcedir /etc/chrony/sources.d\n\
             keyfile /etc/chrony/chrony.keys\ndriftfile /var/lib/chrony/chrony.drift\nlogdir /var/log/chrony\nmaxupdateskew 100.0\nrtcsync\nmakestep 1 3\ninclude /etc/chrony/chrony.conf\ninclude /etc/../etc/x*\n",
        );
        write(&folder, "etc/chrony/conf.d/b.conf", "Server  time.example.org  iburst nts\n");
        write(&folder, "etc/chrony/conf.d/README", "server no.example.org\n");
        write(&folder, "run/chrony-dhcp/eth0.sources", "server 192.0.2.1 iburst\x1b[2J\n");
        write(&folder, "etc/chrony.conf", "server elsewhere\n");
        assert_eq!(
            shown(&folder),
            [
                r#"time_sync:chrony {"files":["/etc/chrony/chrony.conf","/etc/chrony/conf.d/b.conf","/run/chrony-dhcp/eth0.sources"],"options":["keyfile /etc/chrony/chrony.keys","makestep 1 3","rtcsync"],"pools":["2.debian.pool.ntp.org iburst"],"servers":["time.example.org iburst nts","192.0.2.1 iburst\\x1b[2J"]}"#
            ]
        );
    }

    #[test]
    fn timesyncd_takes_drop_ins_by_name_and_an_empty_list_takes_back() {
        let folder = tempfile::tempdir().unwrap();
        write(
            &folder,
            "etc/systemd/timesyncd.conf",
            "[Time]\n#NTP=\nNTP=a.example b.example\nFallbackNTP=f.example\nPollIntervalMaxSec=1h\n",
        );
        write(&folder, "usr/lib/systemd/timesyncd.conf", "[Time]\nNTP=vendor.example\n");
        write(&folder, "usr/lib/systemd/timesyncd.conf.d/10.conf", "[Time]\nNTP=c.example\n");
        write(&folder, "usr/lib/systemd/timesyncd.conf.d/20.conf", "[Time]\nNTP=never.example\n");
        write(&folder, "etc/systemd/timesyncd.conf.d/20.conf", "[Other]\nNTP=no\n[Time]\nFallbackNTP=\nPollIntervalMaxSec=2h\n");
        assert_eq!(
            shown(&folder),
            [
                r#"time_sync:systemd-timesyncd {"files":["/etc/systemd/timesyncd.conf","/usr/lib/systemd/timesyncd.conf.d/10.conf","/etc/systemd/timesyncd.conf.d/20.conf"],"options":["PollIntervalMaxSec=2h"],"servers":["a.example","b.example","c.example"]}"#
            ]
        );
    }

    #[test]
    fn ntpd_and_openntpd_are_told_and_no_password_is() {
        let folder = tempfile::tempdir().unwrap();
        write(
            &folder,
            "etc/ntp.conf",
            "crypto pw hunter2secret\nserver a.example # first\nrestrict default kod nomodify\nincludefile /etc/ntp/more.conf\n",
        );
        write(&folder, "etc/ntp/more.conf", "peer b.example\n");
        write(&folder, "etc/openntpd/ntpd.conf", "servers pool.example\nconstraints from \"https://www.example.org\"\n");
        assert_eq!(
            shown(&folder),
            [
                r#"time_sync:ntp {"files":["/etc/ntp.conf","/etc/ntp/more.conf"],"options":["restrict default kod nomodify"],"peers":["b.example"],"servers":["a.example"]}"#,
                r#"time_sync:openntpd {"files":["/etc/openntpd/ntpd.conf"],"options":["constraints from \"https://www.example.org\""],"pools":["pool.example"]}"#,
            ]
        );
    }

    #[test]
    fn files_that_include_each_other_come_to_an_end() {
        let folder = tempfile::tempdir().unwrap();
        for number in 0..FILES_LIMIT * 2 {
            write(&folder, &format!("etc/c/{number}.conf"), "include /etc/c/*.conf\nserver a\n");
        }
        write(&folder, "etc/chrony.conf", "include /etc/c/*.conf\n");
        let root = Root::at(folder.path());
        let listing = read_all(&root).unwrap();
        let files = listing.items[0].1.fields.value("files").unwrap();
        assert!(matches!(files, Value::List(files) if files.len() <= FILES_LIMIT && files.len() > 1), "{files}");
    }

    proptest! {
        #[test]
        fn hostile_files_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), text in "(server|pool|\\[Time\\]|NTP|=|include|#|/| |\n|x){0,60}") {
            for bytes in [&bytes[..], text.as_bytes()] {
                let mut config = Config::default();
                config.take_timesyncd(bytes);
                for language in [Language::Chrony, Language::Ntp, Language::OpenNtpd] {
                    lines(bytes, language).for_each(|line| config.take(&line, language));
                }
                config.fields(Vec::new());
            }
        }
    }
}
