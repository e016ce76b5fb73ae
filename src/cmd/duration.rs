//! Durations on the command line: `10s`, `500ms`, `1m30s`.

use std::time::Duration;

/// Longest duration that is taken: a hundred days, far from where adding to a clock overflows.
const MAX: Duration = Duration::from_secs(100 * 24 * 3600);

/// Parses numbers with units (`h`, `m`, `s`, `ms`), written one after another. Only zero needs no unit.
pub fn parse(text: &str) -> Result<Duration, String> {
    let text = text.trim();
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    let problem = || format!("expected something like 10s, 500ms or 1m30s, not {text:?}");
    let mut rest = text;
    let mut total = Duration::ZERO;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(problem)?;
        let (number, tail) = rest.split_at(digits);
        let unit = tail.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit);
        let unit_secs = match unit {
            "h" => 3600.0,
            "m" => 60.0,
            "s" => 1.0,
            "ms" => 0.001,
            _ => return Err(problem()),
        };
        let number: f64 = number.parse().map_err(|_| problem())?;
        total = bounded(number * unit_secs).and_then(|part| total.checked_add(part)).ok_or_else(problem)?;
        rest = tail;
    }
    if text.is_empty() || total > MAX { Err(problem()) } else { Ok(total) }
}

/// Like [`parse`], but a bare number means seconds, as in the seed's tools.
pub fn parse_secs(text: &str) -> Result<Duration, String> {
    match text.trim().parse::<f64>() {
        Ok(secs) => bounded(secs).ok_or_else(|| format!("expected seconds from 0 to {}", MAX.as_secs())),
        Err(_) => parse(text),
    }
}

fn bounded(secs: f64) -> Option<Duration> {
    Duration::try_from_secs_f64(secs).ok().filter(|&duration| duration <= MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_add_up() {
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
        ] {
            assert_eq!(parse(text), Ok(Duration::from_millis(ms)), "{text}");
        }
    }

    #[test]
    fn nonsense_is_refused() {
        for text in ["", "10", "s", "10x", "-1s", "1s2", "1.2.3s", "1e3s", "99999999h", "NaNs", "10 s"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn the_load_test_counts_in_seconds() {
        assert_eq!(parse_secs("30"), Ok(Duration::from_secs(30)));
        assert_eq!(parse_secs("0.5"), Ok(Duration::from_millis(500)));
        assert_eq!(parse_secs("2m"), Ok(Duration::from_secs(120)));
        for text in ["", "-1", "NaN", "inf", "1e300"] {
            assert!(parse_secs(text).is_err(), "{text}");
        }
    }
}
