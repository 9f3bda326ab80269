//! What sshd says when it lets somebody in. Pure: text in, values out.

use std::net::IpAddr;

use trueline_drift::actor::Origin;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Accepted {
    pub origin: Origin,
    /// Of the key, where it was one that let them in: `SHA256:` and 43 characters.
    pub key: Option<String>,
}

/// `Accepted METHOD for USER from ADDRESS port PORT ssh2: TYPE SHA256:…`, for this user; a certificate's goes on with its
/// name, number and authority.
pub fn parse_accepted(message: &str, user: &str) -> Option<Accepted> {
    let (method, rest) = message.strip_prefix("Accepted ")?.split_once(" for ")?;
    if method.contains(' ') {
        return None;
    }
    let rest = rest.strip_prefix(user)?.strip_prefix(" from ")?;
    let mut words = rest.split(' ');
    // With the interface that a link-local address was met on.
    let address: IpAddr = words.next()?.split('%').next()?.parse().ok()?;
    let port = match (words.next()?, words.next()?) {
        ("port", port) => port.parse().ok()?,
        _ => return None,
    };
    match words.next()? {
        "ssh2:" => {}
        "ssh2" if words.next().is_none() => {}
        _ => return None,
    }
    // The key of `hostbased` is the other host's, not the user's.
    let key = if method == "publickey" { words.nth(1).filter(|word| is_fingerprint(word)).map(str::to_owned) } else { None };
    Some(Accepted { origin: Origin { address: address.to_canonical(), port: Some(port) }, key })
}

fn is_fingerprint(word: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/');
    word.strip_prefix("SHA256:").is_some_and(|digest| digest.len() == 43 && digest.bytes().all(plain))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const KEY: &str = "SHA256:N+GuxVoGPIh0OfsixHT6ehMxUujikazXnHRk06f0qkY";

    fn line(message: &str) -> Option<(String, Option<String>)> {
        parse_accepted(message, "alice").map(|accepted| (accepted.origin.to_string(), accepted.key))
    }

    #[test]
    fn keys_certificates_and_passwords_are_read() {
        let key = Some(KEY.to_owned());
        for (message, origin, fingerprint) in [
            (format!("Accepted publickey for alice from 10.79.1.1 port 55448 ssh2: ED25519 {KEY}"), "10.79.1.1 port 55448", &key),
            (
                format!("Accepted publickey for alice from fe80::1%eth0 port 9 ssh2: RSA-CERT {KEY} ID me (serial 3) CA RSA SHA256:x"),
                "fe80::1 port 9",
                &key,
            ),
            ("Accepted password for alice from ::ffff:10.0.0.7 port 22 ssh2".to_owned(), "10.0.0.7 port 22", &None),
            ("Accepted keyboard-interactive/pam for alice from 10.0.0.7 port 22 ssh2".to_owned(), "10.0.0.7 port 22", &None),
            ("Accepted publickey for alice from 10.0.0.7 port 22 ssh2: ED25519 MD5:aa:bb".to_owned(), "10.0.0.7 port 22", &None),
        ] {
            assert_eq!(line(&message), Some((origin.to_owned(), fingerprint.clone())), "{message}");
        }
    }

    #[test]
    fn what_is_about_another_or_made_to_look_alike_is_not_taken() {
        for message in [
            "Accepted publickey for bob from 10.0.0.7 port 22 ssh2",
            "Accepted publickey for alice2 from 10.0.0.7 port 22 ssh2",
            "Accepted publickey for alice from 1.1.1.1 port 1 ssh2 from 10.0.0.7 port 99999 ssh2x",
            "Accepted x y for alice from 10.0.0.7 port 22 ssh2",
            "Accepted publickey for alice from somewhere port 22 ssh2",
            "Failed publickey for alice from 10.0.0.7 port 22 ssh2",
            " Accepted publickey for alice from 10.0.0.7 port 22 ssh2",
            "Accepted publickey for alice from 10.0.0.7 port 222222 ssh2",
        ] {
            assert_eq!(line(message), None, "{message}");
        }
    }

    proptest! {
        #[test]
        fn anything_reads_without_a_panic(message in ".{0,300}", user in "[a-z]{0,8}", rest in "( [^ ]{0,9}){0,9}") {
            let _ = parse_accepted(&message, &user);
            if let Some(accepted) = parse_accepted(&format!("Accepted publickey for {user} from {rest}"), &user) {
                prop_assert!(accepted.key.is_none_or(|key| key.len() == 50));
            }
        }
    }
}
