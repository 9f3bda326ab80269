//! The schemas of differing lines: twins of the domain's own serialisation, as those of an actor.

use utoipa::ToSchema;

use super::words;

/// In which lines the text of a file differs from what it was, where its contents are not told as settings. Secrets are redacted.
#[derive(Debug, ToSchema)]
#[schema(as = Lines)]
#[expect(dead_code, reason = "describes the domain's lines; never made")]
pub struct LinesShape {
    /// In the order of the file.
    #[schema(max_items = 64)]
    told: Vec<LineShape>,
    /// Lines that went, with those that are not told. None and none added: only ends of lines differ.
    removed: u64,
    added: u64,
    /// Whether these are all that differ and no others. If not, more lines may be called changed than are.
    is_smallest: bool,
}

#[derive(Debug, ToSchema)]
#[schema(as = Line)]
#[expect(dead_code, reason = "describes the domain's line; never made")]
struct LineShape {
    #[schema(schema_with = words::side)]
    side: String,
    /// From 1, in the text that it stands in: the one before, or the one after.
    number: u64,
    text: String,
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::Value;
    use trueline_drift::format::lines::{Line, Lines, Side};
    use utoipa::PartialSchema;

    use super::*;

    fn keys(value: &Value) -> BTreeSet<String> {
        value.as_object().unwrap().keys().cloned().collect()
    }

    fn described<T: PartialSchema>() -> BTreeSet<String> {
        keys(&serde_json::to_value(T::schema()).unwrap()["properties"])
    }

    #[test]
    fn the_schema_of_lines_names_exactly_the_fields_of_the_domain() {
        let line = |side| Line { side, number: 1, text: "x".to_owned() };
        let json = serde_json::to_value(Lines { told: Side::ALL.map(line).to_vec(), ..Lines::default() }).unwrap();
        assert_eq!(keys(&json), described::<LinesShape>());
        assert_eq!(keys(&json["told"][0]), described::<LineShape>());
        let sides: Vec<&Value> = json["told"].as_array().unwrap().iter().map(|line| &line["side"]).collect();
        assert_eq!(sides, Side::ALL.map(Side::name));
    }
}
