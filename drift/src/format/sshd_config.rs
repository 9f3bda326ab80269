//! sshd_config(5). Keywords are told in the manual's spelling whatever their case; the first value counts, but for keywords that
//! accumulate. What stands after `Match` is led by its criteria. `Include` is shown of a file, and followed by [`effective`].

use super::{FormatError, Repeat, Settings, block, decoded, in_folder};

/// Keywords of which every value counts, and whether each word of a line is a value.
const ACCUMULATING: &[(&str, bool)] = &[
    ("AcceptEnv", true),
    ("AllowGroups", true),
    ("AllowUsers", true),
    ("DenyGroups", true),
    ("DenyUsers", true),
    ("HostCertificate", false),
    ("HostKey", false),
    ("ListenAddress", false),
    ("Port", false),
];

/// Keywords of which the first value counts, in the manual's spelling.
const KEYWORDS: &[&str] = &[
    "AddressFamily",
    "AllowAgentForwarding",
    "AllowStreamLocalForwarding",
    "AllowTcpForwarding",
    "AuthenticationMethods",
    "AuthorizedKeysCommand",
    "AuthorizedKeysCommandUser",
    "AuthorizedKeysFile",
    "AuthorizedPrincipalsFile",
    "Banner",
    "CASignatureAlgorithms",
    "ChallengeResponseAuthentication",
    "ChrootDirectory",
    "Ciphers",
    "ClientAliveCountMax",
    "ClientAliveInterval",
    "Compression",
    "DisableForwarding",
    "ExposeAuthInfo",
    "FingerprintHash",
    "ForceCommand",
    "GatewayPorts",
    "GSSAPIAuthentication",
    "GSSAPICleanupCredentials",
    "HostbasedAcceptedAlgorithms",
    "HostbasedAuthentication",
    "HostKeyAlgorithms",
    "IgnoreRhosts",
    "IgnoreUserKnownHosts",
    "IPQoS",
    "KbdInteractiveAuthentication",
    "KerberosAuthentication",
    "KexAlgorithms",
    "LoginGraceTime",
    "LogLevel",
    "LogVerbose",
    "MACs",
    "MaxAuthTries",
    "MaxSessions",
    "MaxStartups",
    "ModuliFile",
    "PasswordAuthentication",
    "PermitEmptyPasswords",
    "PermitListen",
    "PermitOpen",
    "PermitRootLogin",
    "PermitTTY",
    "PermitTunnel",
    "PermitUserEnvironment",
    "PermitUserRC",
    "PerSourceMaxStartups",
    "PerSourcePenalties",
    "PidFile",
    "PrintLastLog",
    "PrintMotd",
    "PubkeyAcceptedAlgorithms",
    "PubkeyAuthentication",
    "RekeyLimit",
    "RequiredRSASize",
    "RevokedKeys",
    "SetEnv",
    "StreamLocalBindMask",
    "StreamLocalBindUnlink",
    "StrictModes",
    "SyslogFacility",
    "TCPKeepAlive",
    "TrustedUserCAKeys",
    "UseDNS",
    "UsePAM",
    "VersionAddendum",
    "X11DisplayOffset",
    "X11Forwarding",
    "X11UseLocalhost",
    "XAuthLocation",
];

pub(super) fn covers(path: &str) -> bool {
    path == "/etc/ssh/sshd_config" || in_folder(path, &["/etc/ssh/sshd_config.d"], ".conf")
}

/// How deep files include each other, as sshd counts.
const DEPTH: usize = 16;

pub(super) fn read(text: &str, settings: &mut Settings) -> Result<(), FormatError> {
    lines(text, "", settings, &mut |settings, name, patterns| {
        settings.take(Repeat::Ordered, name, &patterns.join(" "));
        Ok(())
    })
}

/// A file that sshd reads, by its path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    pub path: String,
    pub contents: Vec<u8>,
}

/// Why sshd would not start with these files.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{path}, line {line}: {reason}")]
pub struct PartError {
    pub path: String,
    pub line: usize,
    pub reason: &'static str,
}

/// What a file sets with all that it includes; `find` answers with the files of a pattern, in order. What is included within a `Match` counts
/// for it, and a `Match` ends with its file.
pub fn effective(first: &Part, find: &mut dyn FnMut(&str) -> Vec<Part>) -> Result<Settings, PartError> {
    let mut settings = Settings::default();
    follow(first, "", DEPTH, &mut settings, find)?;
    Ok(settings)
}

fn follow(
    part: &Part,
    within: &str,
    depth: usize,
    settings: &mut Settings,
    find: &mut dyn FnMut(&str) -> Vec<Part>,
) -> Result<(), PartError> {
    let mut inner = None;
    let here = |error: FormatError| PartError { path: part.path.clone(), line: error.line, reason: error.reason };
    let text = decoded(&part.contents).map_err(here)?;
    let outcome = lines(&text, within, settings, &mut |settings, name, patterns| {
        let within = name.strip_suffix(INCLUDE).unwrap_or_default();
        let parts: Vec<Part> = patterns.iter().flat_map(|pattern| find(pattern)).collect();
        for included in parts {
            let followed = match depth {
                0 => Err(PartError { path: included.path.clone(), line: 0, reason: "files include each other too deep" }),
                _ => follow(&included, within, depth - 1, settings, find),
            };
            if let Err(error) = followed {
                let outer = FormatError { line: error.line, reason: error.reason };
                inner = Some(error);
                return Err(outer);
            }
        }
        Ok(())
    });
    outcome.map_err(|error| inner.unwrap_or_else(|| here(error)))
}

const INCLUDE: &str = "Include";

/// Is given `Include` with what leads it within a `Match`, and its patterns.
type Included<'a> = dyn FnMut(&mut Settings, &str, &[String]) -> Result<(), FormatError> + 'a;

/// Takes what the lines set, and has `include` take what other files do.
fn lines(text: &str, outer: &str, settings: &mut Settings, include: &mut Included<'_>) -> Result<(), FormatError> {
    let mut within = outer.to_owned();
    for (at, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let end = line.find(|letter: char| letter == '=' || letter.is_ascii_whitespace()).unwrap_or(line.len());
        let (keyword, rest) = line.split_at(end);
        let rest = rest.trim_start();
        let words = words(rest.strip_prefix('=').unwrap_or(rest)).ok_or(FormatError { line: at + 1, reason: "a quote is not closed" })?;
        let value = words.join(" ");
        if keyword.eq_ignore_ascii_case("Match") {
            within = format!("{outer}Match {}.", block(&value));
            continue;
        }
        if keyword.eq_ignore_ascii_case(INCLUDE) {
            include(settings, &format!("{within}{INCLUDE}"), &words)?;
        } else if keyword.eq_ignore_ascii_case("Subsystem") {
            let (name, command) = value.split_once(' ').unwrap_or((&value, ""));
            settings.take(Repeat::First, &format!("{within}Subsystem.{name}"), command);
        } else if let Some((name, each_word)) = ACCUMULATING.iter().find(|(name, _)| name.eq_ignore_ascii_case(keyword)) {
            let name = format!("{within}{name}");
            if *each_word {
                words.iter().for_each(|word| settings.take(Repeat::Unordered, &name, word));
            } else {
                settings.take(Repeat::Unordered, &name, &value);
            }
        } else {
            let known = KEYWORDS.iter().find(|name| name.eq_ignore_ascii_case(keyword));
            let name = known.map_or_else(|| keyword.to_ascii_lowercase(), |name| (*name).to_owned());
            settings.take(Repeat::First, &format!("{within}{name}"), &value);
        }
    }
    Ok(())
}

/// The words of a line without their quotes, up to a comment; nothing where a quote is not closed.
fn words(text: &str) -> Option<Vec<String>> {
    let mut words = Vec::new();
    let mut letters = text.chars().peekable();
    loop {
        while letters.next_if(char::is_ascii_whitespace).is_some() {}
        if matches!(letters.peek(), None | Some('#')) {
            return Some(words);
        }
        let (mut word, mut quote) = (String::new(), None);
        while let Some(letter) = letters.next_if(|letter| quote.is_some() || !letter.is_ascii_whitespace()) {
            match (letter, quote) {
                ('\\', _) => word.push(letters.next_if(|next| matches!(next, '\\' | '"' | '\'' | ' ')).unwrap_or('\\')),
                (_, Some(open)) if letter == open => quote = None,
                ('"' | '\'', None) => quote = Some(letter),
                _ => word.push(letter),
            }
        }
        if quote.is_some() {
            return None;
        }
        words.push(word);
    }
}
