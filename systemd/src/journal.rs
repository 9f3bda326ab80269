//! Logging: to systemd's journal with fields where standard error is the journal, else to standard error as text
//! or JSON.
//!
//! The journal's native protocol is spoken here, in a datagram for each event: `MESSAGE` is the whole line as it
//! would stand on a terminal, and each field of the event stands beside it as `TRUELINE_<FIELD>`. Invariants: a
//! journal that is stuck costs a bounded wait for each event and never an end of the service; a value is bounded.

use std::fmt::{self, Write as _};
use std::io::{self, IsTerminal};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::{Context, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;

const SOCKET: &str = "/run/systemd/journal/socket";
const PATIENCE: Duration = Duration::from_secs(2);
/// Bytes of one value; a dozen of them fit a datagram of the usual 208 KiB.
const VALUE_LIMIT: usize = 16 * 1024;
const PREFIX: &str = "TRUELINE_";

/// How log lines look where they do not go to the journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    Text,
    /// With the module that each line comes from.
    TextWithTarget,
    Json,
}

/// Where the log goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Destination {
    Journal,
    StandardError,
}

/// What is logged: `warn`, or `info,module=debug`, as the variable says; where it says nothing that makes sense, as `otherwise` does.
///
/// Not by tracing-subscriber's `EnvFilter`: filters of spans and fields are not needed, and its regular expressions are a twentieth of an
/// agent.
pub fn filter(variable: &str, otherwise: &'static str) -> Targets {
    let said = std::env::var(variable).ok().filter(|said| !said.trim().is_empty());
    let said = said.and_then(|said| said.parse().ok());
    said.unwrap_or_else(|| otherwise.parse().expect("what is built in is a filter"))
}

/// Starts logging, for the life of the process. `otherwise`: what is logged where `$RUST_LOG` says nothing.
pub fn log(otherwise: &'static str, format: Format) -> Destination {
    let filter = filter("RUST_LOG", otherwise);
    if let Some(journal) = stderr_is_journal().then(|| Journal::connect(Path::new(SOCKET)).ok()).flatten() {
        tracing_subscriber::registry().with(filter).with(journal).init();
        return Destination::Journal;
    }
    let text = tracing_subscriber::fmt::layer().with_writer(io::stderr).with_ansi(io::stderr().is_terminal());
    let logged = tracing_subscriber::registry().with(filter);
    match format {
        Format::Text => logged.with(text.with_target(false)).init(),
        Format::TextWithTarget => logged.with(text).init(),
        Format::Json => logged.with(text.json()).init(),
    }
    Destination::StandardError
}

/// Whether what is written to standard error reaches the journal anyway: `$JOURNAL_STREAM` names its device and
/// inode (systemd.exec(5)).
fn stderr_is_journal() -> bool {
    let Ok(stream) = std::env::var("JOURNAL_STREAM") else { return false };
    let Ok(file) = io::stderr().as_fd().try_clone_to_owned() else { return false };
    std::fs::File::from(file).metadata().is_ok_and(|metadata| names(&stream, &metadata))
}

fn names(stream: &str, metadata: &std::fs::Metadata) -> bool {
    let numbers = stream.split_once(':').and_then(|(device, inode)| Some((device.parse().ok()?, inode.parse().ok()?)));
    numbers == Some((metadata.dev(), metadata.ino()))
}

/// A layer that sends each event to the journal.
#[derive(Debug)]
struct Journal {
    socket: UnixDatagram,
    path: PathBuf,
    identifier: String,
}

impl Journal {
    fn connect(path: &Path) -> io::Result<Self> {
        let socket = UnixDatagram::unbound()?;
        socket.set_write_timeout(Some(PATIENCE))?;
        let program = std::env::current_exe().ok();
        let name = program.as_deref().and_then(Path::file_name).map(|name| name.to_string_lossy().into_owned());
        let journal = Self { socket, path: path.to_owned(), identifier: name.unwrap_or_default() };
        // The journal passes over an empty datagram; an error says that nobody is there.
        journal.socket.send_to(&[], path)?;
        Ok(journal)
    }
}

impl<S: Subscriber> tracing_subscriber::Layer<S> for Journal {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut line = Line::default();
        event.record(&mut line);
        let metadata = event.metadata();
        let mut entry = Vec::with_capacity(512);
        put(&mut entry, "PRIORITY", priority(*metadata.level()));
        put(&mut entry, "SYSLOG_IDENTIFIER", &self.identifier);
        put(&mut entry, "TARGET", line.target.as_deref().unwrap_or(metadata.target()));
        put(&mut entry, "MESSAGE", &line.text());
        for (name, value) in &line.fields {
            put(&mut entry, name, value);
        }
        // There is nobody to tell of a failure.
        let _ = self.socket.send_to(&entry, &self.path);
    }
}

/// syslog(3)'s numbers. Chatter of libraries at `info` is as informational as ours.
fn priority(level: Level) -> &'static str {
    match level {
        Level::ERROR => "3",
        Level::WARN => "4",
        Level::INFO => "6",
        _ => "7",
    }
}

/// One field in the form that may hold any bytes: name, length, value.
fn put(entry: &mut Vec<u8>, name: &str, value: &str) {
    let value = &value[..value.floor_char_boundary(VALUE_LIMIT)];
    entry.extend_from_slice(name.as_bytes());
    entry.push(b'\n');
    entry.extend_from_slice(&(value.len() as u64).to_le_bytes());
    entry.extend_from_slice(value.as_bytes());
    entry.push(b'\n');
}

/// What an event says.
#[derive(Default)]
struct Line {
    message: String,
    /// ` name=value` for each field.
    rest: String,
    fields: Vec<(String, String)>,
    /// Of an event that came over from the `log` crate.
    target: Option<String>,
}

impl Line {
    fn text(&self) -> String {
        format!("{}{}", self.message, self.rest).trim_start().to_owned()
    }

    fn take(&mut self, field: &Field, shown: fmt::Arguments<'_>, value: String) {
        match field.name() {
            "message" => self.message = value,
            "log.target" => self.target = Some(value),
            name if name.starts_with("log.") => {}
            name => {
                // Writing to a String does not fail.
                let _ = write!(self.rest, " {name}={shown}");
                self.fields.push((journal_name(name), value));
            }
        }
    }
}

impl Visit for Line {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.take(field, format_args!("{value:?}"), value.to_owned());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.take(field, format_args!("{value:?}"), format!("{value:?}"));
    }
}

/// The journal takes capital letters, digits and underscores, 64 in all.
fn journal_name(name: &str) -> String {
    let plain = name.chars().map(|character| if character.is_ascii_alphanumeric() { character.to_ascii_uppercase() } else { '_' });
    PREFIX.chars().chain(plain).take(64).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn parse(mut entry: &[u8]) -> BTreeMap<String, String> {
        let mut fields = BTreeMap::new();
        while let Some(end) = entry.iter().position(|byte| *byte == b'\n') {
            let (length, rest) = entry[end + 1..].split_first_chunk().expect("a length");
            let (value, rest) = rest.split_at(u64::from_le_bytes(*length) as usize);
            let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
            fields.insert(text(&entry[..end]), text(value));
            entry = rest.strip_prefix(b"\n").expect("a line feed after each value");
        }
        fields
    }

    #[test]
    fn an_event_reaches_the_journal_whole_with_its_fields_beside_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let daemon = UnixDatagram::bind(&path).unwrap();
        daemon.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        let mut buffer = vec![0; 256 * 1024];
        let mut next = || {
            let length = daemon.recv(&mut buffer).expect("an entry");
            parse(&buffer[..length])
        };
        let journal = Journal::connect(&path).unwrap();
        assert_eq!(next().len(), 0, "the greeting");
        tracing::subscriber::with_default(tracing_subscriber::registry().with(journal), || {
            tracing::warn!(reason = "token_used_up", peer.port = 7, error = %io::Error::other("a\nb"), "refused");
            tracing::info!(text = "x".repeat(100_000), "long");
        });
        let entry = next();
        let expected = [
            ("PRIORITY", "4"),
            ("MESSAGE", "refused reason=\"token_used_up\" peer.port=7 error=a\nb"),
            ("TRUELINE_REASON", "token_used_up"),
            ("TRUELINE_PEER_PORT", "7"),
            ("TRUELINE_ERROR", "a\nb"),
            ("TARGET", "trueline_systemd::journal::tests"),
        ];
        for (name, value) in expected {
            assert_eq!(entry.get(name).map(String::as_str), Some(value), "{name} of {entry:?}");
        }
        assert!(entry["SYSLOG_IDENTIFIER"].starts_with("trueline_systemd"));
        let long = next();
        assert_eq!((long["TRUELINE_TEXT"].len(), long["MESSAGE"].len(), long["PRIORITY"].as_str()), (VALUE_LIMIT, VALUE_LIMIT, "6"));
    }

    #[test]
    fn without_a_journal_there_is_no_layer() {
        assert!(Journal::connect(Path::new("/nowhere/at/all")).is_err());
    }

    #[test]
    fn a_stream_is_the_journal_by_device_and_inode() {
        let file = tempfile::tempfile().unwrap().metadata().unwrap();
        assert!(names(&format!("{}:{}", file.dev(), file.ino()), &file));
        for other in [format!("{}:{}", file.dev(), file.ino() + 1), format!("{}", file.dev()), ":".to_owned(), String::new()] {
            assert!(!names(&other, &file), "{other}");
        }
    }
}
