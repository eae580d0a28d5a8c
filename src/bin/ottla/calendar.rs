//! Points in time and spans of time in arguments.

use std::time::Duration;

/// Reads a date and time, ISO 8601 as Kafka's tools take it, or `@` and milliseconds since 1970.
pub(crate) fn timestamp_ms(text: &str) -> Result<i64, String> {
    let found = match text.strip_prefix('@') {
        Some(ms) => ms.parse().ok().filter(|ms| *ms >= 0),
        None => iso(text),
    };
    found.ok_or_else(|| {
        "it should be YYYY-MM-DDThh:mm:ss.sss, with or without a zone, or @MS".into()
    })
}

/// Reads a span: numbers with units, or ISO 8601 as Kafka's tools take it.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let seconds = match text.strip_prefix('P') {
        Some(iso) => {
            let (date, time) = iso.split_once('T').unwrap_or((iso, ""));
            let is_cut_off = date.is_empty() && time.is_empty() || iso.ends_with('T');
            let date = sum(date, &[("D", DAY)]);
            let time = sum(time, &[("H", HOUR), ("M", MINUTE), ("S", 1.0)]);
            date.zip(time).filter(|_| !is_cut_off).map(|(date, time)| date + time)
        }
        None => sum(
            text,
            &[("w", 7.0 * DAY), ("d", DAY), ("h", HOUR), ("ms", 0.001), ("m", MINUTE), ("s", 1.0)],
        )
        .filter(|_| !text.is_empty()),
    };
    let duration = seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    duration.ok_or_else(|| "it should be like 90s, 1d12h, 250ms or P1DT12H".into())
}

/// Adds up numbers with their units; `None` if there is anything else.
fn sum(text: &str, units: &[(&str, f64)]) -> Option<f64> {
    let mut rest = text;
    let mut total = 0.0;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..end].parse().ok()?;
        let (unit, seconds) = units.iter().find(|(unit, _)| rest[end..].starts_with(unit))?;
        total += number * seconds;
        rest = &rest[end + unit.len()..];
    }
    Some(total)
}

fn iso(text: &str) -> Option<i64> {
    let (date, rest) = text.split_once(['T', ' ']).unwrap_or((text, "00:00Z"));
    let (year, rest_of_date) = date.split_once('-')?;
    let (month, day) = rest_of_date.split_once('-')?;
    let (year, month, day) = (digits(year, 4)?, digits(month, 2)?, digits(day, 2)?);
    let zone_at = rest.find(['Z', '+', '-']).unwrap_or(rest.len());
    let (time, zone) = rest.split_at(zone_at);
    let (hour, rest_of_time) = time.split_once(':')?;
    let (minute, second) = rest_of_time.split_once(':').unwrap_or((rest_of_time, "00"));
    let (second, fraction) = second.split_once('.').unwrap_or((second, "0"));
    let (hour, minute, second) = (digits(hour, 2)?, digits(minute, 2)?, digits(second, 2)?);
    let is_a_day = (1..=12).contains(&month) && (1..=days_in(year, month)).contains(&day);
    if !is_a_day || hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    digits(fraction, fraction.len())?;
    // More digits than milliseconds have are cut off.
    let fraction_ms = digits(&format!("{fraction:0<3}")[..3], 3)?;
    let of_day = (hour * 60 + minute) * 60 + second - zone_seconds(zone)?;
    Some((days_since_1970(year, month, day) * 86_400 + of_day) * 1000 + fraction_ms)
}

fn zone_seconds(zone: &str) -> Option<i64> {
    let sign = match zone.chars().next() {
        // As Kafka's tool has it: no zone is UTC.
        None => return Some(0),
        Some('Z') => return zone[1..].is_empty().then_some(0),
        Some('-') => -1,
        Some(_) => 1,
    };
    let (hours, minutes) = match zone[1..].split_once(':') {
        Some(parts) => parts,
        None => (zone.get(1..3)?, zone.get(3..).filter(|rest| !rest.is_empty()).unwrap_or("00")),
    };
    let (hours, minutes) = (digits(hours, 2)?, digits(minutes, 2)?);
    (hours <= 18 && minutes <= 59).then_some(sign * (hours * 60 + minutes) * 60)
}

/// Reads a number of exactly so many digits.
fn digits(text: &str, count: usize) -> Option<i64> {
    let is_number = text.len() == count && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|_| is_number)
}

fn is_leap(year: i64) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

fn days_in(year: i64, month: i64) -> i64 {
    match month {
        2 if is_leap(year) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

fn days_since_1970(year: i64, month: i64, day: i64) -> i64 {
    let before = year - 1;
    let to_year = before * 365 + before / 4 - before / 100 + before / 400;
    let to_month: i64 = (1..month).map(|month| days_in(year, month)).sum();
    to_year + to_month + day - 1 - DAYS_TO_1970
}

const HOUR: f64 = 3600.0;
const MINUTE: f64 = 60.0;
const DAY: f64 = 86_400.0;
/// From the first day of the year 1 to that of 1970.
const DAYS_TO_1970: i64 = 719_162;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_kafkas_tool_reads_them() {
        for (text, ms) in [
            ("1970-01-01T00:00:00.000", 0),
            ("1970-01-01", 0),
            ("1970-01-01T01:00+01:00", 0),
            ("2000-02-29T23:59:59.999Z", 951_868_799_999),
            ("2024-02-29T12:30:00.5+0100", 1_709_206_200_500),
            ("2024-02-29 12:30:00-05", 1_709_227_800_000),
            ("2100-03-01T00:00:00Z", 4_107_542_400_000),
            ("1969-12-31T23:59:59Z", -1000),
            ("@1709206200500", 1_709_206_200_500),
        ] {
            assert_eq!(timestamp_ms(text), Ok(ms), "{text}");
        }
        for text in [
            "",
            "@",
            "@-5",
            "@x",
            "yesterday",
            "2023-02-29",
            "2023-13-01",
            "2023-00-01",
            "23-01-01",
            "2023-01-01T24:00",
            "2023-01-01T12",
            "2023-01-01T12:60",
            "2023-01-01T12:00:60",
            "2023-01-01T12:00:00.",
            "2023-01-01T12:00:00.x",
            "2023-01-01T12:00Zulu",
            "2023-01-01T12:00+1",
            "2023-01-01T12:00+99:00",
            "2023-01-01T12:00:00.éé",
            "2023-01-01Té",
            "2023-01-01T12:00+éé",
        ] {
            assert!(timestamp_ms(text).is_err(), "{text}: {:?}", timestamp_ms(text));
        }
    }

    #[test]
    fn spans_are_read_with_units_or_as_iso() {
        for (text, ms) in [
            ("90s", 90_000),
            ("250ms", 250),
            ("1d12h", 129_600_000),
            ("2m30s", 150_000),
            ("1w", 604_800_000),
            ("0s", 0),
            ("P1DT12H", 129_600_000),
            ("PT0.5S", 500),
            ("PT2M", 120_000),
            ("P7D", 604_800_000),
        ] {
            assert_eq!(duration(text), Ok(Duration::from_millis(ms)), "{text}");
        }
        for text in [
            "", "5", "-5s", "s", "5y", "P", "PT", "P1DT", "P1M", "P1Y", "1.2.3s", "1e9s", "é", "5é",
        ] {
            assert!(duration(text).is_err(), "{text}: {:?}", duration(text));
        }
        assert!(duration(&format!("{}d", "9".repeat(400))).is_err());
    }
}
