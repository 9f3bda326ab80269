//! How long ago something was, in the words the pages use. The script repeats this to keep ages
//! moving: change both together.

use trueline_drift::Time;

/// `now`, `14s`, `1m 28s`, `2h 04m`, `3d 4h`. What lies in the future is `now`: clocks differ.
pub fn age(at: Time, now: Time) -> String {
    let seconds = now.micros_since(at) / 1_000_000;
    match seconds {
        ..1 => "now".to_owned(),
        1..60 => format!("{seconds}s"),
        60..3600 => format!("{}m {:02}s", seconds / 60, seconds % 60),
        3600..86_400 => format!("{}h {:02}m", seconds / 3600, seconds / 60 % 60),
        _ => format!("{}d {}h", seconds / 86_400, seconds / 3600 % 24),
    }
}

/// `142`, `1,427`, `92,418`.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_are_short_and_never_negative() {
        let now = Time::from_seconds(1_000_000);
        for (ago, expected) in [(-5, "now"), (0, "now"), (14, "14s"), (88, "1m 28s"), (7_440, "2h 04m"), (273_600, "3d 4h")] {
            assert_eq!(age(now.plus_seconds(-ago), now), expected);
        }
    }

    #[test]
    fn numbers_are_grouped_by_thousands() {
        for (number, expected) in [(0, "0"), (999, "999"), (1_427, "1,427"), (1_234_567, "1,234,567")] {
            assert_eq!(grouped(number), expected);
        }
    }
}
