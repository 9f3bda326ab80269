//! What the fuzz targets share: what must be true of memory and of text whatever the input.

pub mod growth;
pub mod host;

use peak_alloc::PeakAlloc;
use trueline_drift::text::printable;

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

/// Runs `work`, and fails where it held more than `limit` bytes at once beyond what was held before.
pub fn within<Made>(limit: usize, work: impl FnOnce() -> Made) -> Made {
    let before = MEMORY.current_usage();
    MEMORY.reset_peak_usage();
    let made = work();
    let held = MEMORY.peak_usage().saturating_sub(before);
    assert!(held <= limit, "{held} bytes were held at once; {limit} is the bound");
    made
}

/// Fails where showing the text could move a terminal's cursor, end a line or deceive a reader.
pub fn assert_shown(text: &str) {
    let mut buffer = [0; 4];
    for c in text.chars() {
        let c: &str = c.encode_utf8(&mut buffer);
        assert!(c == "\\" || printable(c.as_bytes()) == c, "{c:?} in {text:?}");
    }
}
