//! Settings and lines of configuration files: a named secret never comes out, masking twice is masking once, and what is
//! told of two texts is bounded and printable.
#![no_main]

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use trueline_drift::format::lines::{BYTES_LIMIT, LINES_LIMIT, between, masked};
use trueline_drift::redact::{RedactionKey, line, setting};
use trueline_fuzz::assert_shown;

const SECRET: &str = "hunter2hunter2";

#[derive(Arbitrary, Debug)]
struct Input<'a> {
    name: &'a str,
    value: &'a str,
    before: &'a str,
    after: &'a str,
}

fuzz_target!(|input: Input<'_>| {
    let key = RedactionKey::new([7; 32]);
    let once = setting(input.name, input.value, &key);
    assert_eq!(setting(input.name, &once, &key), once, "masking twice is masking once");
    let once = line(input.value, &key);
    assert_eq!(line(&once, &key), once, "masking twice is masking once");

    if [input.name, input.value, input.before, input.after].iter().any(|text| text.contains(SECRET)) {
        return;
    }
    let told = setting("a.password", SECRET, &key);
    assert!(!told.contains(SECRET), "{told}");
    let after = format!("{}\npassword={SECRET}\n", input.after);
    let of = |text: &str| masked(text.as_bytes(), &key);
    let Some((before, after)) = of(input.before).zip(of(&after)) else { return };
    let found = between(&before, &after);
    assert!(found.told.len() <= LINES_LIMIT);
    assert!(found.told.iter().map(|line| line.text.len()).sum::<usize>() <= BYTES_LIMIT);
    for line in &found.told {
        assert_shown(&line.text);
        assert!(!line.text.contains(SECRET), "{line}");
    }
});
