//! Turns bytes that another user of a host chose (file names, arguments, link targets) into text
//! that is safe to print, to put in HTML and to compare, and back again.
//!
//! Invariants: [`printable`] never yields a control character, an unpaired or right-to-left
//! override, or invalid UTF-8; and [`original`] undoes it exactly, so two names that differ in any
//! byte differ in their text.

use std::borrow::Cow;

/// Characters that reorder or hide the text around them (Unicode bidi controls, zero width, BOM).
fn is_deceptive(c: char) -> bool {
    matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

fn is_plain(c: char) -> bool {
    c != '\\' && !c.is_control() && !is_deceptive(c) && c != '\u{2028}' && c != '\u{2029}'
}

/// The bytes as text: printable characters stay, a backslash becomes `\\`, any other byte `\xHH`.
pub fn printable(bytes: &[u8]) -> Cow<'_, str> {
    if let Ok(text) = std::str::from_utf8(bytes)
        && text.chars().all(is_plain)
    {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(bytes.len() + 16);
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            if is_plain(c) {
                out.push(c);
            } else if c == '\\' {
                out.push_str("\\\\");
            } else {
                let mut buffer = [0; 4];
                push_escaped(&mut out, c.encode_utf8(&mut buffer).as_bytes());
            }
        }
        push_escaped(&mut out, chunk.invalid());
    }
    Cow::Owned(out)
}

fn push_escaped(out: &mut String, bytes: &[u8]) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    for byte in bytes {
        out.push_str("\\x");
        out.push(HEX[usize::from(byte >> 4)] as char);
        out.push(HEX[usize::from(byte & 15)] as char);
    }
}

/// The bytes that [`printable`] was given. Text that [`printable`] cannot have made (a lone or
/// unknown escape) is taken literally.
pub fn original(text: &str) -> Cow<'_, [u8]> {
    if !text.contains('\\') {
        return Cow::Borrowed(text.as_bytes());
    }
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        match bytes[at..] {
            [b'\\', b'\\', ..] => {
                out.push(b'\\');
                at += 2;
            }
            [b'\\', b'x', high, low, ..] if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => {
                out.push(nibble(high) << 4 | nibble(low));
                at += 4;
            }
            [byte, ..] => {
                out.push(byte);
                at += 1;
            }
            [] => break,
        }
    }
    Cow::Owned(out)
}

fn nibble(hex: u8) -> u8 {
    match hex {
        b'0'..=b'9' => hex - b'0',
        b'a'..=b'f' => hex - b'a' + 10,
        _ => hex - b'A' + 10,
    }
}

/// Cuts text to at most `limit` bytes at a character boundary and says how much is missing.
pub fn bounded(text: &str, limit: usize) -> Cow<'_, str> {
    if text.len() <= limit {
        return Cow::Borrowed(text);
    }
    let mut end = limit;
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    Cow::Owned(format!("{}… ({} bytes in all)", &text[..end], text.len()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn hostile_names_become_harmless_text() {
        assert_eq!(printable(b"/etc/a\nb"), "/etc/a\\x0ab");
        assert_eq!(printable(b"\x1b[31mred"), "\\x1b[31mred");
        assert_eq!(printable(b"caf\xc3\xa9 \xff"), "café \\xff");
        assert_eq!(printable("x\u{202e}txt".as_bytes()), "x\\xe2\\x80\\xaetxt");
        assert_eq!(printable(br"C:\x41"), r"C:\\x41");
    }

    #[test]
    fn bounded_cuts_at_a_character() {
        assert_eq!(bounded("aéé", 2), "a… (5 bytes in all)");
    }

    proptest! {
        #[test]
        fn printable_is_reversible(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let text = printable(&bytes);
            prop_assert!(!text.chars().any(char::is_control));
            let back = original(&text);
            prop_assert_eq!(&back[..], &bytes[..]);
        }
    }
}
