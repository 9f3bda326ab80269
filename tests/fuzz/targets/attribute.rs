//! ACLs, capabilities, inode flags and extended attributes, which any owner of a file may set.
#![no_main]

use libfuzzer_sys::fuzz_target;
use trueline_agent::collect::attributes::{acl, capabilities, flags, xattr};
use trueline_fuzz::assert_shown;

fuzz_target!(|bytes: &[u8]| {
    if let Some(Some(text)) = acl(bytes) {
        assert_shown(&text);
        assert!(text.len() <= bytes.len() / 8 * 24);
    }
    if let Some(text) = capabilities(bytes) {
        assert_shown(&text);
        assert!(!text.is_empty() && text.len() <= 2048);
    }
    if let Some(bits) = bytes.first_chunk() {
        assert!(flags(u32::from_le_bytes(*bits)).is_none_or(|text| text.len() <= 16));
    }
    let shown = xattr(bytes).to_string();
    assert_shown(&shown);
    assert!(shown.len() <= 2 * 1024 + 2);
    // A value with one more byte is another value, unless that byte only ends the text.
    let longer = [bytes, b"x"].concat();
    assert_ne!(xattr(&longer), xattr(bytes));
});
