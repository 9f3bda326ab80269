//! Configuration files of every known format, read as settings. The first byte chooses the format.
#![no_main]

use libfuzzer_sys::fuzz_target;
use trueline_drift::FieldName;
use trueline_drift::format::{Format, SETTINGS_LIMIT};
use trueline_fuzz::assert_shown;

fuzz_target!(|bytes: &[u8]| {
    let Some((first, bytes)) = bytes.split_first() else { return };
    let format = Format::ALL[usize::from(*first) % Format::ALL.len()];
    let Ok(settings) = format.read(bytes) else { return };
    let fields = settings.fields(|_, value| value.to_owned());
    // A setting and its conflict each, and the count of those left out.
    assert!(fields.len() <= 2 * SETTINGS_LIMIT + 1);
    for (name, value) in fields {
        assert_shown(name.as_str());
        assert!(name.as_str().len() <= FieldName::LIMIT);
        assert_shown(&value.to_string());
    }
});
