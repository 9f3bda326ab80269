//! Which collector to speak to, and with what token: the context file and where it is looked for.
//!
//! Invariants: `--context` wins over `$TRUELINE_CONTEXT`, that over `./.trueline/context.toml`, and
//! that over the user's configuration folder; a context found by itself in the current folder counts
//! only when the file belongs to this user, the superuser, or the user behind sudo; a token never
//! travels over plain HTTP beyond this machine.

use std::io::{Read, Write};
use std::net::IpAddr;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use reqwest::Url;
use serde::Deserialize;
use trueline_drift::document::{DocumentError, parse_toml};

/// Longest context file taken, in bytes.
const FILE_LIMIT: u64 = 64 * 1024;
const VARIABLE: &str = "TRUELINE_CONTEXT";

#[derive(Debug, thiserror::Error)]
pub enum ContextError {
    #[error(
        "no context: I do not know which collector to ask.\n\
         Looked at $TRUELINE_CONTEXT, {looked_at}.\n\
         Run `trueline quickstart` here, or write such a file (mode 0600):\n\
         \n    url = \"https://collector.example:8089\"\n    token = \"tl_api_…\"   # from `trueline tokens create --kind api` or the collector's operator\n"
    )]
    None { looked_at: String },
    #[error("there is no context file {path}: name one that is there, or run `trueline quickstart` and name its .trueline/context.toml")]
    Missing { path: String },
    #[error("cannot read the context {path}: {source}{hint}")]
    Read { path: String, source: std::io::Error, hint: &'static str },
    #[error("the context {path} is no regular file of at most {FILE_LIMIT} bytes")]
    Shape { path: String },
    #[error(
        "the context {path} was found in the current folder but belongs to user {owner}, so it is not trusted by itself: name it with --context"
    )]
    Stranger { path: String, owner: u32 },
    #[error(transparent)]
    Document(#[from] DocumentError),
    #[error("{path}: url: `{url}` is no collector's address: write https://HOST:8089, or http://127.0.0.1:8089 on the same machine")]
    Address { path: String, url: String },
    #[error("{path}: url: {url} is plain HTTP to another machine, which would show the token to everyone between: use https")]
    Plain { path: String, url: String },
    #[error("{path}: token: a token is one word of printable ASCII")]
    Token { path: String },
    #[error("{path}: ca: cannot read {ca}: {source}")]
    Authority { path: String, ca: String, source: std::io::Error },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    url: String,
    token: String,
    ca: Option<PathBuf>,
}

/// The token's text; its Debug shows nothing.
#[derive(Clone)]
pub struct Token(pub String);

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token(..)")
    }
}

#[derive(Debug, Clone)]
pub struct Context {
    /// Ends in `/`.
    pub url: Url,
    pub token: Token,
    /// PEM of the only authority to trust; absent means the system's.
    pub authority: Option<Vec<u8>>,
    /// For messages.
    pub path: PathBuf,
    /// The file can be read by users it does not belong to.
    pub exposed: bool,
}

/// Places to look, in order; the first that exists is taken.
#[derive(Debug, Clone, Default)]
pub struct Places {
    pub option: Option<PathBuf>,
    pub variable: Option<PathBuf>,
    pub here: PathBuf,
    pub home: Option<PathBuf>,
}

impl Places {
    pub fn of_environment(option: Option<PathBuf>) -> Self {
        let folder = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let configuration = folder("XDG_CONFIG_HOME").or_else(|| folder("HOME").map(|home| home.join(".config")));
        Self {
            option,
            variable: folder(VARIABLE),
            here: PathBuf::from("./.trueline/context.toml"),
            home: configuration.map(|folder| folder.join("trueline/context.toml")),
        }
    }
}

pub fn load(places: &Places) -> Result<Context, ContextError> {
    if let Some(path) = places.option.as_ref().or(places.variable.as_ref()) {
        return read(path, false)?.ok_or_else(|| ContextError::Missing { path: shown(path) });
    }
    if let Some(context) = read(&places.here, true)? {
        return Ok(context);
    }
    if let Some(context) = places.home.as_ref().map(|path| read(path, false)).transpose()?.flatten() {
        return Ok(context);
    }
    let looked_at = std::iter::once(&places.here).chain(places.home.as_ref()).map(|path| shown(path)).collect::<Vec<_>>().join(", ");
    Err(ContextError::None { looked_at })
}

/// `None` where there is no such file. `found`: nobody named the file, it just lies there.
fn read(path: &Path, found: bool) -> Result<Option<Context>, ContextError> {
    let fail = |source: std::io::Error| {
        let denied = source.kind() == std::io::ErrorKind::PermissionDenied;
        let hint = if denied { ". It belongs to the user who made it: run as that user (sudo, if quickstart ran with sudo)" } else { "" };
        ContextError::Read { path: shown(path), source, hint }
    };
    // Non-blocking, so that a FIFO put there cannot hold us.
    let file = match std::fs::OpenOptions::new().read(true).custom_flags(NON_BLOCKING).open(path) {
        Ok(file) => file,
        Err(error) if matches!(error.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory) => return Ok(None),
        Err(error) => return Err(fail(error)),
    };
    let metadata = file.metadata().map_err(fail)?;
    if !metadata.is_file() || metadata.len() > FILE_LIMIT {
        return Err(ContextError::Shape { path: shown(path) });
    }
    if found && !is_own(metadata.uid()) {
        return Err(ContextError::Stranger { path: shown(path), owner: metadata.uid() });
    }
    let mut text = String::new();
    file.take(FILE_LIMIT).read_to_string(&mut text).map_err(fail)?;
    parse(path, &text, metadata.mode() & 0o077 != 0).map(Some)
}

/// O_NONBLOCK, which std does not name.
const NON_BLOCKING: i32 = 0o4000;

fn is_own(owner: u32) -> bool {
    let sudo = || std::env::var("SUDO_UID").ok().and_then(|uid| uid.parse::<u32>().ok());
    owner == 0 || std::fs::metadata("/proc/self").is_ok_and(|me| me.uid() == owner) || sudo() == Some(owner)
}

fn parse(path: &Path, text: &str, exposed: bool) -> Result<Context, ContextError> {
    let name = shown(path);
    let document: Document = parse_toml(&name, text)?;
    let address = || ContextError::Address { path: name.clone(), url: document.url.clone() };
    let mut url = Url::parse(&document.url).map_err(|_| address())?;
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() || !url.username().is_empty() {
        return Err(address());
    }
    if url.scheme() == "http" && !is_loopback(&url) {
        return Err(ContextError::Plain { path: name, url: document.url });
    }
    if !url.path().ends_with('/') {
        url.set_path(&format!("{}/", url.path()));
    }
    url.set_query(None);
    url.set_fragment(None);
    if document.token.is_empty() || !document.token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(ContextError::Token { path: name });
    }
    let authority = match &document.ca {
        None => None,
        Some(ca) => {
            let beside = path.parent().unwrap_or(Path::new(".")).join(ca);
            let pem = std::fs::read(&beside).map_err(|source| ContextError::Authority { path: name, ca: shown(&beside), source })?;
            Some(pem)
        }
    };
    Ok(Context { url, token: Token(document.token), authority, path: path.to_owned(), exposed })
}

/// Whether requests to this address stay on this machine.
pub fn is_loopback(url: &Url) -> bool {
    url.host_str().is_some_and(|host| {
        host == "localhost" || host.trim_matches(['[', ']']).parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
    })
}

/// Writes a context that only its owner can read, replacing the file in one step.
pub fn write(path: &Path, url: &str, token: &Token) -> std::io::Result<()> {
    let new = path.with_extension("toml.new");
    match std::fs::remove_file(&new) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
    writeln!(file, "# Whom `trueline` asks, and with what token. Keep it to yourself.\nurl = \"{url}\"\ntoken = \"{}\"", token.0)?;
    file.sync_all()?;
    std::fs::rename(&new, path)
}

fn shown(path: &Path) -> String {
    use std::os::unix::ffi::OsStrExt;
    trueline_drift::text::printable(path.as_os_str().as_bytes()).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "url = 'http://127.0.0.1:8089'\ntoken = 'tl_api_1'\n";

    fn places(folder: &Path) -> Places {
        Places {
            option: Some(folder.join("option.toml")),
            variable: Some(folder.join("variable.toml")),
            here: folder.join("here.toml"),
            home: Some(folder.join("home.toml")),
        }
    }

    #[test]
    fn the_nearest_context_wins() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["option", "variable", "here", "home"] {
            std::fs::write(folder.path().join(format!("{name}.toml")), GOOD.replace("_1", &format!("_{name}"))).unwrap();
        }
        let mut places = places(folder.path());
        let token = |places: &Places| load(places).unwrap().token.0;
        assert_eq!(token(&places), "tl_api_option");
        places.option = None;
        assert_eq!(token(&places), "tl_api_variable");
        places.variable = None;
        assert_eq!(token(&places), "tl_api_here");
        std::fs::remove_file(&places.here).unwrap();
        assert_eq!(token(&places), "tl_api_home");
        std::fs::remove_file(places.home.as_ref().unwrap()).unwrap();
        assert!(load(&places).unwrap_err().to_string().contains("trueline quickstart"));
    }

    #[test]
    fn a_named_context_that_is_missing_is_an_error_not_a_fallback() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("here.toml"), GOOD).unwrap();
        assert!(matches!(load(&places(folder.path())), Err(ContextError::Missing { .. })));
    }

    #[test]
    fn a_mistyped_key_names_its_line_and_plain_http_elsewhere_is_refused() {
        let fault = |text: &str| parse(Path::new("c.toml"), text, false).unwrap_err().to_string();
        assert!(fault("url = 'x'\ntokn = 'y'\n").starts_with("c.toml:2:1: unknown key `tokn`: did you mean `token`?"));
        assert!(fault("url = 'http://10.0.0.1:8089'\ntoken = 'y'\n").contains("plain HTTP"));
        assert!(fault("url = 'ftp://127.0.0.1'\ntoken = 'y'\n").contains("no collector's address"));
        assert!(fault("url = 'http://127.0.0.1'\ntoken = 'y\\u000a'\n".replace('\'', "\"").as_str()).contains("printable"));
    }

    #[test]
    fn a_written_context_reads_back_and_is_private() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("context.toml");
        write(&path, "http://127.0.0.1:8089", &Token("tl_api_2".into())).unwrap();
        write(&path, "http://127.0.0.1:8090", &Token("tl_api_3".into())).unwrap();
        let context = read(&path, true).unwrap().unwrap();
        assert_eq!((context.url.as_str(), context.token.0.as_str(), context.exposed), ("http://127.0.0.1:8090/", "tl_api_3", false));
    }

    #[test]
    fn a_fifo_in_the_place_of_a_context_does_not_hold_us() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("fifo");
        assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
        assert!(matches!(read(&path, false), Err(ContextError::Shape { .. })));
    }
}
