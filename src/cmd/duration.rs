//! Durations on the command line, such as `10s`, `500ms` or `1m30s`.

use std::time::Duration;

/// Maximum duration on the command line, a hundred days. The maximum prevents an overflow when a duration is added to a
/// time.
const MAX: Duration = Duration::from_secs(100 * 24 * 3600);

/// Parses a duration in the grammar of `humantime`, at most a hundred days. Only zero needs no unit.
pub fn parse(text: &str) -> Result<Duration, String> {
    let duration = humantime::parse_duration(text);
    duration
        .ok()
        .filter(|&duration| duration <= MAX)
        .ok_or_else(|| format!("{text:?} is not a duration: use at most 100 days, such as 10s, 500ms or 1m30s"))
}

/// Like [`parse`], but a bare number means seconds, as in the Go hub's tools.
pub fn parse_secs(text: &str) -> Result<Duration, String> {
    let Ok(secs) = text.trim().parse() else { return parse(text) };
    Duration::try_from_secs_f64(secs)
        .ok()
        .filter(|&duration| duration <= MAX)
        .ok_or_else(|| format!("{text:?} is not a number of seconds: use 0 to {}", MAX.as_secs()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_of_a_duration_are_added() {
        for (text, ms) in [
            ("0", 0),
            ("0s", 0),
            ("500ms", 500),
            ("10s", 10_000),
            ("1.5s", 1_500),
            ("2m", 120_000),
            ("1m30s", 90_000),
            ("1h1ms", 3_600_001),
            (" 1s ", 1_000),
            ("100days", 8_640_000_000),
        ] {
            assert_eq!(parse(text), Ok(Duration::from_millis(ms)), "{text}");
        }
    }

    #[test]
    fn invalid_and_too_long_durations_are_refused() {
        for text in
            ["", "10", "s", "10x", "-1s", "1s2", "1.2.3s", "1e3s", "101days", "99999999h", "99999999999999999y", "NaNs"]
        {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_bare_number_means_seconds_in_the_load_test() {
        assert_eq!(parse_secs("30"), Ok(Duration::from_secs(30)));
        assert_eq!(parse_secs("0.5"), Ok(Duration::from_millis(500)));
        assert_eq!(parse_secs("2m"), Ok(Duration::from_secs(120)));
        for text in ["", "-1", "NaN", "inf", "1e300"] {
            assert!(parse_secs(text).is_err(), "{text}");
        }
    }
}
