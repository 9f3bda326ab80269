//! Patterns over item keys: `*` within a path segment, `**` over segments, everything else literal.
//!
//! Matching is linear in pattern times text and never backtracks exponentially, because patterns
//! come from people and keys from hosts.

use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Pattern(String);

impl Pattern {
    pub fn new(pattern: &str) -> Self {
        Self(pattern.to_owned())
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The literal text before the first wildcard: every match starts with it.
    pub fn prefix(&self) -> &str {
        self.0.split('*').next().unwrap_or("")
    }

    pub fn matches(&self, key: &str) -> bool {
        matches(self.0.as_bytes(), key.as_bytes())
    }

    /// As [`Self::matches`], with segments between dots: for names of kernel settings, in which a
    /// `/` stands for a dot within a segment (`net.ipv4.conf.eth0/100.forwarding`).
    pub fn matches_dotted(&self, name: &str) -> bool {
        let swap = |text: &str| -> Vec<u8> {
            text.bytes()
                .map(|byte| {
                    if byte == b'.' {
                        b'/'
                    } else if byte == b'/' {
                        b'.'
                    } else {
                        byte
                    }
                })
                .collect()
        };
        matches(&swap(&self.0), &swap(name))
    }
}

/// Greedy matching that remembers the last `*` and the last `**`; falling back to the inner one
/// first and then to the outer keeps it polynomial.
fn matches(pattern: &[u8], text: &[u8]) -> bool {
    // (pattern position after the star, text position it has swallowed up to)
    let (mut star, mut double) = (None::<(usize, usize)>, None::<(usize, usize)>);
    let (mut p, mut t) = (0, 0);
    loop {
        if pattern[p..].starts_with(b"**") {
            p += 2;
            double = Some((p, t));
            star = None;
            continue;
        }
        if p < pattern.len() && pattern[p] == b'*' {
            p += 1;
            star = Some((p, t));
            continue;
        }
        if p == pattern.len() && t == text.len() {
            return true;
        }
        if p < pattern.len() && t < text.len() && pattern[p] == text[t] {
            p += 1;
            t += 1;
            continue;
        }
        if let Some((after, swallowed)) = star
            && swallowed < text.len()
            && text[swallowed] != b'/'
        {
            star = Some((after, swallowed + 1));
            (p, t) = (after, swallowed + 1);
            continue;
        }
        match double {
            Some((after, swallowed)) if swallowed < text.len() => {
                double = Some((after, swallowed + 1));
                star = None;
                (p, t) = (after, swallowed + 1);
            }
            _ => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stars_stay_within_a_segment_and_double_stars_do_not() {
        for (pattern, text, expected) in [
            ("/etc/*.conf", "/etc/a.conf", true),
            ("/etc/*.conf", "/etc/x/a.conf", false),
            ("/etc/**", "/etc/x/a.conf", true),
            ("/etc/**", "/etc", false),
            ("/etc/**/a.*", "/etc/x/y/a.conf", true),
            ("**/*.pyc", "/usr/lib/python3/a.pyc", true),
            ("*", "anything", true),
            ("", "", true),
            ("a*b*c", "aXbYbZc", true),
            ("/a/**/b/*/c", "/a/x/b/y/z/b/q/c", true),
        ] {
            assert_eq!(Pattern::new(pattern).matches(text), expected, "{pattern} on {text}");
        }
    }

    #[test]
    fn a_hostile_pattern_ends_soon() {
        let text = "a".repeat(4000);
        assert!(!Pattern::new(&"*a".repeat(200)).matches(&format!("{text}b")));
        assert!(!Pattern::new(&"**a".repeat(100)).matches(&format!("{text}b")));
    }
}
