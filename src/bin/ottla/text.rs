//! Escapes in arguments, numbers and names for people.

use std::time::Duration;

/// Replaces `\n`, `\t`, `\r`, `\0`, `\\` and `\xNN`.
pub(crate) fn unescape(text: &str) -> Result<Vec<u8>, String> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((plain, escaped)) = rest.split_once('\\') {
        out.extend_from_slice(plain.as_bytes());
        let (byte, len) = escape(escaped)?;
        out.push(byte);
        rest = &escaped[len..];
    }
    out.extend_from_slice(rest.as_bytes());
    Ok(out)
}

/// Reads what follows a backslash: the byte it stands for, and how many bytes it takes.
pub(crate) fn escape(escaped: &str) -> Result<(u8, usize), String> {
    let byte = match escaped.bytes().next() {
        Some(b'n') => b'\n',
        Some(b't') => b'\t',
        Some(b'r') => b'\r',
        Some(b'0') => 0,
        Some(b'\\') => b'\\',
        Some(b'x') => {
            let digits = escaped.get(1..3).unwrap_or_default();
            let is_hex = digits.bytes().all(|digit| digit.is_ascii_hexdigit());
            let byte = u8::from_str_radix(digits, 16).ok().filter(|_| is_hex);
            let byte =
                byte.ok_or_else(|| format!("\\x{digits}: two hexadecimal digits are needed"))?;
            return Ok((byte, 3));
        }
        _ => {
            let shown: String = escaped.chars().take(1).collect();
            return Err(format!("\\{shown} is not an escape; \\n \\t \\r \\0 \\\\ \\xNN are"));
        }
    };
    Ok((byte, 1))
}

/// Shows a number of bytes with a binary unit.
pub(crate) fn bytes(count: f64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut count = count;
    let mut unit = 0;
    while count >= 1024.0 && unit + 1 < units.len() {
        count /= 1024.0;
        unit += 1;
    }
    if unit == 0 {
        format!("{count:.0} {}", units[unit])
    } else {
        format!("{count:.1} {}", units[unit])
    }
}

/// Shows a name that may hold anything in one cell of one line.
pub(crate) fn name(name: &str) -> String {
    let shown = |c: char| match c.is_control() {
        true => c.escape_default().to_string(),
        false => c.to_string(),
    };
    name.chars().map(shown).collect()
}

/// Shows a span of time by its two greatest units.
pub(crate) fn span(ms: u64) -> String {
    let seconds = ms / 1000;
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    match () {
        () if ms == 0 => "0s".to_owned(),
        () if seconds == 0 => format!("{ms}ms"),
        () if minutes == 0 => format!("{seconds}.{}s", ms % 1000 / 100),
        () if hours == 0 => format!("{minutes}m{:02}s", seconds % 60),
        () if days == 0 => format!("{hours}h{:02}m", minutes % 60),
        () => format!("{days}d{:02}h", hours % 24),
    }
}

/// Gives how many of something there were in a second.
pub(crate) fn rate(count: u64, elapsed: Duration) -> f64 {
    // A clock that has not moved yet must not divide by nothing.
    count as f64 / elapsed.as_secs_f64().max(1e-9)
}

#[cfg(test)]
mod tests {
    #[test]
    fn spans_are_shown_by_their_two_greatest_units() {
        for (ms, shown) in [
            (0, "0s"),
            (999, "999ms"),
            (1000, "1.0s"),
            (59_999, "59.9s"),
            (60_000, "1m00s"),
            (3_599_999, "59m59s"),
            (3_600_000, "1h00m"),
            (86_399_999, "23h59m"),
            (86_400_000, "1d00h"),
            (u64::MAX, "213503982334d14h"),
        ] {
            assert_eq!(super::span(ms), shown);
        }
    }
}
