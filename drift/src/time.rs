//! A moment, in microseconds since the Unix epoch: fine enough to order changes, and the precision
//! both databases keep. There is no `now` here: time is an argument of the domain.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Time(i64);

impl Time {
    pub const fn from_micros(micros: i64) -> Self {
        Self(micros)
    }

    pub const fn from_seconds(seconds: i64) -> Self {
        Self(seconds.saturating_mul(1_000_000))
    }

    /// The nearest moment between 1970 and the end of the calendar that people write (RFC 3339).
    pub const fn in_calendar(self) -> Self {
        const LAST: i64 = 253_402_207_200_000_000;
        match self.0 {
            ..0 => Self(0),
            LAST.. => Self(LAST),
            micros => Self(micros),
        }
    }

    pub const fn micros(self) -> i64 {
        self.0
    }

    pub const fn plus_micros(self, micros: i64) -> Self {
        Self(self.0.saturating_add(micros))
    }

    pub const fn plus_seconds(self, seconds: i64) -> Self {
        self.plus_micros(seconds.saturating_mul(1_000_000))
    }

    /// Microseconds from `earlier` to this moment; negative if it lies after.
    pub const fn micros_since(self, earlier: Self) -> i64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// RFC 3339, UTC, always six decimals, so that text order is time order.
impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match jiff::Timestamp::from_microsecond(self.0) {
            Ok(timestamp) => write!(f, "{timestamp:.6}"),
            Err(_) => write!(f, "{}us", self.0),
        }
    }
}

#[derive(Debug, thiserror::Error)]
#[error("`{text}` is not a time: write RFC 3339, as in 2026-02-12T10:30:00Z")]
pub struct TimeError {
    text: String,
}

impl FromStr for Time {
    type Err = TimeError;

    fn from_str(text: &str) -> Result<Self, TimeError> {
        text.parse::<jiff::Timestamp>().map(|timestamp| Self(timestamp.as_microsecond())).map_err(|_| TimeError { text: text.to_owned() })
    }
}

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_has_six_decimals_and_reads_back() {
        let time = Time::from_micros(1_770_892_200_000_007);
        assert_eq!(time.to_string(), "2026-02-12T10:30:00.000007Z");
        assert_eq!(time.to_string().parse::<Time>().unwrap(), time);
        assert_eq!(Time::from_seconds(0).to_string(), "1970-01-01T00:00:00.000000Z");
    }
}
