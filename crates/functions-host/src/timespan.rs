//! .NET time spans: `[-][d.]hh:mm[:ss[.fraction]]`, as host.json and function.json write durations.

use std::time::Duration;

/// Reads a time span that is not negative; `None` when the text is none.
pub(crate) fn parse(text: &str) -> Option<Duration> {
    let text = text.trim();
    let mut parts = text.split(':');
    let (first, minutes) = (parts.next()?, number(parts.next()?, 59)?);
    let seconds = parts.next();
    if parts.next().is_some() {
        return None;
    }
    let (days, hours) = match first.split_once('.') {
        Some((days, hours)) => (number(days, 10_675_198)?, number(hours, 23)?),
        None => (0, number(first, 23)?),
    };
    let (seconds, nanos) = match seconds {
        None => (0, 0),
        Some(text) => match text.split_once('.') {
            None => (number(text, 59)?, 0),
            Some((whole, fraction)) => {
                if fraction.is_empty() || fraction.len() > 7 {
                    return None;
                }
                let nanos = number(&format!("{fraction:0<9}"), 999_999_999)?;
                (number(whole, 59)?, nanos)
            }
        },
    };
    let whole = ((days * 24 + hours) * 60 + minutes) * 60 + seconds;
    Some(Duration::new(whole, u32::try_from(nanos).ok()?))
}

fn number(text: &str, max: u64) -> Option<u64> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    text.parse().ok().filter(|number| *number <= max)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_dot_net_reads() {
        for (text, millis) in [
            ("00:00:30", 30_000),
            ("00:05", 300_000),
            ("01:02:03.5", 3_723_500),
            ("1.00:00:00", 86_400_000),
            ("00:00:00.0250000", 25),
        ] {
            assert_eq!(parse(text), Some(Duration::from_millis(millis)), "{text}");
        }
    }

    #[test]
    fn refuses_the_rest() {
        for text in [
            "",
            "30",
            "-00:00:01",
            "00:60:00",
            "24:00:00",
            "a:b:c",
            "1:2:3:4",
            "00:00:01.",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
