//! Numbers with what they count, as a sentence has them.

use indicatif::HumanCount;

/// `1 item`, `2 items`, `214,332 items`.
pub fn counted(number: u64, noun: &str) -> String {
    format!("{} {noun}{}", HumanCount(number), if number == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_is_not_many() {
        for (number, expected) in [(0, "0 items"), (1, "1 item"), (2, "2 items"), (1_000, "1,000 items")] {
            assert_eq!(counted(number, "item"), expected);
        }
    }
}
