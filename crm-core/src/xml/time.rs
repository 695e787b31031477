//! Points in time as Pacemaker writes them: seconds since the epoch or ISO 8601, in UTC.

use super::tree::Element;

const DAY_MS: u64 = 86_400_000;

/// Reads a point in time as milliseconds since the epoch: seconds, `2005-01-20`, `2005-020T12:30`, `2014-05-07 00:28:00Z`.
#[must_use]
pub fn parse_time_ms(text: &str) -> Option<u64> {
    let text = text.trim();
    if let Ok(seconds) = text.parse::<u64>() {
        return seconds.checked_mul(1000);
    }
    let (date, clock) = match text.find(['T', ' ']) {
        Some(at) => (text.get(..at)?, text.get(at + 1..)?.trim()),
        None => (text, ""),
    };
    let parts: Vec<i64> = date.split('-').map(|p| p.parse().ok()).collect::<Option<_>>()?;
    let days = match *parts.as_slice() {
        [year, month, day] => days_from_civil(year, month, day),
        [year, day_of_year] => days_from_civil(year, 1, 1) + day_of_year - 1,
        _ => return None,
    };
    let mut ms = days.checked_mul(86_400_000)?;
    let (clock, offset) = split_offset(clock)?;
    for (part, factor) in clock.split(':').filter(|p| !p.is_empty()).zip([3_600_000, 60_000, 1_000])
    {
        ms += part.parse::<i64>().ok()? * factor;
    }
    u64::try_from(ms - offset).ok()
}

/// A clock time and how far it is ahead of UTC, in milliseconds.
fn split_offset(clock: &str) -> Option<(&str, i64)> {
    let clock = clock.strip_suffix('Z').unwrap_or(clock).trim();
    let Some(at) = clock.find(['+', '-']) else { return Some((clock, 0)) };
    let sign = if clock.get(at..=at) == Some("-") { -1 } else { 1 };
    let digits: String = clock.get(at + 1..)?.chars().filter(char::is_ascii_digit).collect();
    let number: i64 = digits.parse().ok()?;
    let (hours, minutes) =
        if digits.len() > 2 { (number / 100, number % 100) } else { (number, 0) };
    Some((clock.get(..at)?.trim(), sign * (hours * 60 + minutes) * 60_000))
}

/// Days since 1970-01-01 of a day of the Gregorian calendar.
const fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * (if month > 2 { month - 3 } else { month + 9 }) + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

/// A day of the calendar and its place in week and year.
struct Day {
    year: i64,
    month: i64,
    day: i64,
    /// 1 = Monday.
    weekday: i64,
    of_year: i64,
}

fn civil(ms: u64) -> Day {
    let days = i64::try_from(ms / DAY_MS).unwrap_or(i64::MAX);
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let of_era = shifted.rem_euclid(146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_march = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_of_march = (5 * of_march + 2) / 153;
    let day = of_march - (153 * month_of_march + 2) / 5 + 1;
    let month = if month_of_march < 10 { month_of_march + 3 } else { month_of_march - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    let of_year = days - days_from_civil(year, 1, 1) + 1;
    Day { year, month, day, weekday: (days + 3).rem_euclid(7) + 1, of_year }
}

/// Does a time match a `date_spec`?
pub(super) fn matches_spec(spec: Element<'_>, ms: u64) -> bool {
    let day = civil(ms);
    let of_day = i64::try_from(ms % DAY_MS).unwrap_or_default();
    spec.attrs().filter(|(name, _)| *name != "id").all(|(name, range)| {
        let value = match name {
            "seconds" => of_day / 1000 % 60,
            "minutes" => of_day / 60_000 % 60,
            "hours" => of_day / 3_600_000,
            "monthdays" => day.day,
            "weekdays" => day.weekday,
            "yeardays" => day.of_year,
            "months" => day.month,
            "years" | "weekyears" => day.year,
            "weeks" => (day.of_year - day.weekday + 10) / 7,
            _ => return false,
        };
        in_range(range, value)
    })
}

/// `5`, `1-5`, `3-`, `-7`.
fn in_range(range: &str, value: i64) -> bool {
    match range.split_once('-') {
        None => range.trim().parse() == Ok(value),
        Some((low, high)) => {
            let low: Option<i64> = low.trim().parse().ok();
            let high: Option<i64> = high.trim().parse().ok();
            low.is_none_or(|l| value >= l) && high.is_none_or(|h| value <= h)
        }
    }
}

/// Length of a `duration`; months count as 30 days and years as 365.
pub(super) fn duration_ms(duration: Element<'_>) -> Option<u64> {
    let units = [
        ("seconds", 1_000),
        ("minutes", 60_000),
        ("hours", 3_600_000),
        ("days", DAY_MS),
        ("weeks", 7 * DAY_MS),
        ("months", 30 * DAY_MS),
        ("years", 365 * DAY_MS),
    ];
    let mut sum: u64 = 0;
    for (name, ms) in units {
        if let Some(count) = duration.attr(name) {
            sum = sum.checked_add(count.parse::<u64>().ok()?.checked_mul(ms)?)?;
        }
    }
    Some(sum)
}
