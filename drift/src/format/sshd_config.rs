//! sshd_config(5). Keywords are told in the manual's spelling whatever their case; the first value counts, but for keywords that
//! accumulate. What stands after `Match` is led by its criteria. `Include` is shown and not followed.

use super::{FormatError, Repeat, Settings, block, in_folder};

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

pub(super) fn read(text: &str, settings: &mut Settings) -> Result<(), FormatError> {
    let mut within = String::new();
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
            within = format!("Match {}.", block(&value));
            continue;
        }
        if keyword.eq_ignore_ascii_case("Include") {
            settings.take(Repeat::Ordered, &format!("{within}Include"), &value);
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
