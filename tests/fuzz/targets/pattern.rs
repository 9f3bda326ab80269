//! Patterns over item keys, beside a table of what matches what that is plainly right and slow.
#![no_main]

use libfuzzer_sys::fuzz_target;
use trueline_drift::pattern::Pattern;

fuzz_target!(|input: (&str, &str)| {
    let (pattern, text) = input;
    let parsed = Pattern::new(pattern);
    let found = parsed.matches(text);
    assert!(!found || text.starts_with(parsed.prefix()));
    let (swapped, dotted) = (swap(pattern), swap(text));
    assert_eq!(parsed.matches_dotted(text), Pattern::new(&swapped).matches(&dotted));
    if pattern.len() <= 128 && text.len() <= 256 {
        assert_eq!(found, reference(pattern.as_bytes(), text.as_bytes()), "{pattern:?} on {text:?}");
    }
});

fn swap(text: &str) -> String {
    text.chars()
        .map(|c| match c {
            '.' => '/',
            '/' => '.',
            other => other,
        })
        .collect()
}

/// `reached[t]`: the pattern so far matches the first `t` bytes.
fn reference(mut pattern: &[u8], text: &[u8]) -> bool {
    let mut reached = vec![false; text.len() + 1];
    reached[0] = true;
    while let Some((first, rest)) = pattern.split_first() {
        if let Some(rest) = pattern.strip_prefix(b"**") {
            for t in 0..text.len() {
                reached[t + 1] |= reached[t];
            }
            pattern = rest;
            continue;
        }
        if *first == b'*' {
            for t in 0..text.len() {
                reached[t + 1] |= reached[t] && text[t] != b'/';
            }
        } else {
            for t in (0..text.len()).rev() {
                reached[t + 1] = reached[t] && text[t] == *first;
            }
            reached[0] = false;
        }
        pattern = rest;
    }
    reached[text.len()]
}
