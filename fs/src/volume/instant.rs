//! Reads an instant as people write it: `2026-11-20T14:05`, `14:05`, `-2h`, `yesterday`.
//!
//! *Format*: `now`; `today` and `yesterday` (the end of that day, or now); `-N` with one of `s m h d w`; a date (its end); a date
//! and a time joined by `T` or `_`, with `:` or `-` between the parts of the time, optionally with seconds and with a zone (`Z`,
//! `+01:00`); a time of today. Without a zone the volume's zone holds. A minute or second that is named counts to its end.

use std::str::FromStr;

use jiff::{
    SignedDuration, Timestamp, ToSpan, Zoned,
    civil::{Date, DateTime, Time as ClockTime},
    tz::{Offset, TimeZone},
};

use crate::time::Time;

/// The last moment that `text` names, or `None` if it names none.
pub fn parse_instant(text: &str, now: Time, zone: &TimeZone) -> Option<Time> {
    let now = Timestamp::from_nanosecond(i128::from(now.as_nanos())).ok()?.to_zoned(zone.clone());
    let at = match text {
        "now" => now,
        "today" => end_of_day(now.date(), zone)?,
        "yesterday" => end_of_day(now.date().yesterday().ok()?, zone)?,
        _ if text.starts_with('-') => relative(&text[1..], &now)?,
        _ => absolute(text, &now, zone)?,
    };
    Some(Time::from_nanos(i64::try_from(at.timestamp().as_nanosecond()).ok()?))
}

fn end_of_day(date: Date, zone: &TimeZone) -> Option<Zoned> {
    let start = date.tomorrow().ok()?.to_zoned(zone.clone()).ok()?;
    start.checked_sub(1.nanosecond()).ok()
}

fn relative(text: &str, now: &Zoned) -> Option<Zoned> {
    let unit = text.chars().last()?;
    let count: i64 = digits(&text[..text.len() - unit.len_utf8()])?;
    let seconds = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3600,
        'd' => 86_400,
        'w' => 604_800,
        _ => return None,
    };
    now.checked_sub(SignedDuration::from_secs(count.checked_mul(seconds)?)).ok()
}

fn absolute(text: &str, now: &Zoned, zone: &TimeZone) -> Option<Zoned> {
    let (text, zone) = split_zone(text, zone)?;
    let (date, clock) = match text.split_once(['T', '_']) {
        Some((date, clock)) => (parse_date(date)?, clock),
        None => match parse_date(text) {
            Some(date) => return end_of_day(date, &zone),
            None => (now.with_time_zone(zone.clone()).date(), text),
        },
    };
    let (clock, length) = parse_clock(clock)?;
    let start = DateTime::from_parts(date, clock).to_zoned(zone).ok()?;
    start.checked_add(length).ok()?.checked_sub(1.nanosecond()).ok()
}

/// Cuts `Z` or `+hh:mm` off the end; a minus sign there would be ambiguous with the time's own separators unless a `T` and a
/// full time stand before it, so only `+` and `Z` are read.
fn split_zone<'t>(text: &'t str, zone: &TimeZone) -> Option<(&'t str, TimeZone)> {
    if let Some(rest) = text.strip_suffix('Z') {
        return Some((rest, TimeZone::UTC));
    }
    let Some((rest, offset)) = text.split_once('+') else {
        return Some((text, zone.clone()));
    };
    let (hours, minutes) = offset.split_once(':').unwrap_or((offset, "0"));
    let (hours, minutes): (i32, i32) = (digits(hours)?, digits(minutes)?);
    let offset = Offset::from_seconds(hours.checked_mul(3600)?.checked_add(minutes.checked_mul(60)?)?).ok()?;
    Some((rest, offset.to_time_zone()))
}

fn parse_date(text: &str) -> Option<Date> {
    let mut parts = text.split('-');
    let date = Date::new(
        digits(parts.next().filter(|year| year.len() == 4)?)?,
        digits(parts.next()?)?,
        digits(parts.next()?)?,
    );
    if parts.next().is_some() { None } else { date.ok() }
}

/// A time of day and how long the unit lasts that was named last.
fn parse_clock(text: &str) -> Option<(ClockTime, SignedDuration)> {
    let mut parts = text.split([':', '-']);
    let hour = digits(parts.next().filter(|hour| (1..=2).contains(&hour.len()))?)?;
    let minute = digits(parts.next()?)?;
    let (second, length) = match parts.next() {
        Some(second) => (digits(second)?, SignedDuration::from_secs(1)),
        None => (0, SignedDuration::from_secs(60)),
    };
    if parts.next().is_some() {
        return None;
    }
    Some((ClockTime::new(hour, minute, second, 0).ok()?, length))
}

/// A number without any sign: signs separate here.
fn digits<T: FromStr>(text: &str) -> Option<T> {
    text.parse().ok().filter(|_| text.bytes().all(|byte| byte.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    /// 2026-11-21 20:17:26 UTC.
    const NOW: i64 = 1_795_292_246;

    fn seconds(text: &str) -> Option<i64> {
        let zone = Offset::constant(1).to_time_zone();
        parse_instant(text, Time::from_nanos(NOW * 1_000_000_000), &zone).map(|time| time.sec)
    }

    #[test]
    fn relative_instants_count_back_from_the_present() {
        assert_eq!(seconds("now"), Some(NOW));
        assert_eq!(seconds("-2h"), Some(NOW - 7200));
        assert_eq!(seconds("-90s"), Some(NOW - 90));
        assert_eq!(seconds("-1w"), Some(NOW - 604_800));
    }

    #[test]
    fn absolute_instants_last_to_the_end_of_what_was_named() {
        let utc = |text: &str| text.parse::<Timestamp>().unwrap().as_second();
        assert_eq!(seconds("2026-11-20T14:05"), Some(utc("2026-11-20T13:05:59Z")));
        assert_eq!(seconds("2026-11-20T14-05-07"), Some(utc("2026-11-20T13:05:07Z")));
        assert_eq!(seconds("2026-11-20T14:05Z"), Some(utc("2026-11-20T14:05:59Z")));
        assert_eq!(seconds("2026-11-20T14:05+02:00"), Some(utc("2026-11-20T12:05:59Z")));
        assert_eq!(seconds("14:05"), Some(utc("2026-11-21T13:05:59Z")));
        assert_eq!(seconds("2026-11-20"), Some(utc("2026-11-20T22:59:59Z")));
        assert_eq!(seconds("yesterday"), Some(utc("2026-11-20T22:59:59Z")));
    }

    #[test]
    fn what_names_no_instant_is_refused() {
        for text in
            ["", "-", "-2", "-2x", "2026-13-01", "25:00", "14:05:06:07", "2026-11-20T", "noon", "-99999999999w", "+"]
        {
            assert_eq!(seconds(text), None, "{text}");
        }
    }

    /// `--5s` named an instant that was still to come.
    #[test]
    fn a_sign_is_no_part_of_a_number() {
        for text in
            ["--5s", "-+5s", "2026-+1-02", "+026-01-02", "+1:05", "14:+5", "14:05:+7", "14:05+-2:00", "14:05++2"]
        {
            assert_eq!(seconds(text), None, "{text}");
        }
    }
}
