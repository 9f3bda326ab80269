//! Times as people say them: ages, durations, and moments given as either.

use std::time::Duration;

use trueline_drift::Time;

/// The present, from the system's clock: the one place where this program reads it.
pub fn now() -> Time {
    let since_epoch = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    Time::from_micros(i64::try_from(since_epoch.as_micros()).unwrap_or(i64::MAX))
}

/// `8s`, `2m`, `5h`, `3d`: short enough for a column. What lies ahead is `now`: clocks differ.
pub fn age(then: Time, now: Time) -> String {
    let seconds = now.micros_since(then) / 1_000_000;
    match seconds {
        ..1 => "now".to_owned(),
        1..60 => format!("{seconds}s"),
        60..3600 => format!("{}m", seconds / 60),
        3600..86_400 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}

/// `2026-02-12 10:30:00Z`: a moment for people.
pub fn moment(time: Time) -> String {
    let text = time.to_string();
    match text.split_once('T') {
        Some((day, rest)) => format!("{day} {}Z", rest.split('.').next().unwrap_or(rest)),
        None => text,
    }
}

/// `10:30:00`, UTC.
pub fn clock(time: Time) -> String {
    let text = time.to_string();
    text.split_once('T').and_then(|(_, rest)| rest.split_once('.')).map_or_else(|| text.clone(), |(clock, _)| clock.to_owned())
}

/// With its age behind it: `2026-02-12 10:30:00Z (2m ago)`.
pub fn moment_and_age(time: Time, now: Time) -> String {
    match age(time, now).as_str() {
        "now" => format!("{} (now)", moment(time)),
        age => format!("{} ({age} ago)", moment(time)),
    }
}

/// `90s`, `15m`, `24h`, `7d`, `2w`.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let fault = || format!("`{text}` is not a duration: write 90s, 15m, 24h, 7d or 2w");
    let unit = text.chars().last().ok_or_else(fault)?;
    let seconds: u64 = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3600,
        'd' => 86_400,
        'w' => 7 * 86_400,
        _ => return Err(fault()),
    };
    let number: u64 = text[..text.len() - unit.len_utf8()].parse().map_err(|_| fault())?;
    let seconds = number.checked_mul(seconds).filter(|seconds| (1..=100 * 366 * 86_400).contains(seconds)).ok_or_else(fault)?;
    Ok(Duration::from_secs(seconds))
}

/// A moment as RFC 3339, or as a duration back from now.
pub fn parse_moment(text: &str) -> Result<Time, String> {
    if let Ok(back) = parse_duration(text) {
        return Ok(now().plus_seconds(-i64::try_from(back.as_secs()).unwrap_or(i64::MAX)));
    }
    text.parse().map_err(|_| format!("`{text}` is not a time: write 2026-02-12T10:30:00Z, or 15m for fifteen minutes ago"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_are_short_and_never_negative() {
        let now = Time::from_seconds(1_000_000);
        for (seconds, expected) in [(-5, "now"), (0, "now"), (59, "59s"), (60, "1m"), (3599, "59m"), (7200, "2h"), (200_000, "2d")] {
            assert_eq!(age(now.plus_seconds(-seconds), now), expected);
        }
    }

    #[test]
    fn durations_have_a_unit_and_a_bound() {
        assert_eq!(parse_duration("24h").unwrap(), Duration::from_secs(86_400));
        for bad in ["", "h", "24", "0s", "-1h", "1y", "99999999999999999999w", "9999999w", "1µ"] {
            assert!(parse_duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn moments_read_as_people_write_them() {
        let time: Time = "2026-02-12T10:30:00.123456Z".parse().unwrap();
        assert_eq!((moment(time).as_str(), clock(time).as_str()), ("2026-02-12 10:30:00Z", "10:30:00"));
        assert!(parse_moment("yesterday").unwrap_err().contains("15m"));
    }
}
