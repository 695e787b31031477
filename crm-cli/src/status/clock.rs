//! Wall clock times as people read them.

use jiff::Timestamp;
use jiff::tz::TimeZone;

/// Milliseconds since the epoch as `Mon Dec 10 13:53:21 2018`.
pub(crate) fn long(when_ms: u64, zone: &TimeZone) -> String {
    moment(when_ms).map_or_else(
        || format!("{when_ms} ms since the epoch"),
        |t| t.to_zoned(zone.clone()).strftime("%a %b %e %H:%M:%S %Y").to_string(),
    )
}

/// Milliseconds since the epoch as `2018-12-10 13:53:21`; `-` when nobody looked at the clock.
pub(crate) fn sortable(when_ms: u64, zone: &TimeZone) -> String {
    if when_ms == 0 {
        return "-".to_owned();
    }
    moment(when_ms).map_or_else(
        || format!("{when_ms} ms"),
        |t| t.to_zoned(zone.clone()).strftime("%Y-%m-%d %H:%M:%S").to_string(),
    )
}

/// A span as `5s`, `20ms`, `2m`.
pub(crate) fn span(ms: u64) -> String {
    match ms {
        _ if ms >= 60_000 && ms.is_multiple_of(60_000) => format!("{}m", ms / 60_000),
        _ if ms >= 1_000 && ms.is_multiple_of(1_000) => format!("{}s", ms / 1_000),
        _ if ms >= 1_000 => format!("{}.{:03}s", ms / 1_000, ms % 1_000),
        _ => format!("{ms}ms"),
    }
}

fn moment(when_ms: u64) -> Option<Timestamp> {
    Timestamp::from_millisecond(i64::try_from(when_ms).ok()?).ok()
}
