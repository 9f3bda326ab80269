use super::*;

/// Every setting as the fields that it becomes.
fn told(format: Format, text: &str) -> String {
    match format.read(text.as_bytes()) {
        Ok(settings) => {
            let fields = settings.fields(|_, value| value.to_owned());
            fields.iter().map(|(name, value)| format!("{name}: {}\n", serde_json::to_string(value).expect("values are JSON"))).collect()
        }
        Err(error) => format!("refused: {error}\n"),
    }
}

#[test]
fn the_last_assignment_counts_and_a_conflict_is_shown() {
    insta::assert_snapshot!(told(Format::KeyValue, "# comment\nexport A=\"1\"\nB=2\nA=3\nB=2\n"), @r#"
    config.A: "3"
    config.B: "2"
    conflict.A: ["1","3"]
    "#);
}
