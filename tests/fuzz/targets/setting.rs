//! Settings and lines of configuration files: a named secret never comes out, masking twice is masking once, and what is
//! told of two texts is bounded and printable.
#![no_main]

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use trueline_drift::format::{BYTES_LIMIT, LINES_LIMIT, lines};
use trueline_drift::redact::{RedactionKey, Rules, line, setting};
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
    let (rules, key) = (Rules::default(), RedactionKey::new([7; 32]));
    let once = setting(input.name, input.value, &rules, &key);
    assert_eq!(setting(input.name, &once, &rules, &key), once, "masking twice is masking once");
    let once = line(input.value, &rules, &key);
    assert_eq!(line(&once, &rules, &key), once, "masking twice is masking once");

    if [input.name, input.value, input.before, input.after].iter().any(|text| text.contains(SECRET)) {
        return;
    }
    let told = setting("a.password", SECRET, &rules, &key);
    assert!(!told.contains(SECRET), "{told}");
    let after = format!("{}\npassword={SECRET}\n", input.after);
    let Some(found) = lines(input.before.as_bytes(), after.as_bytes(), &rules, &key) else { return };
    assert!(found.told.len() <= LINES_LIMIT);
    assert!(found.told.iter().map(|line| line.text.len()).sum::<usize>() <= BYTES_LIMIT);
    for line in &found.told {
        assert_shown(&line.text);
        assert!(!line.text.contains(SECRET), "{line}");
    }
});
