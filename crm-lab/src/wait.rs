//! Waiting for other processes: a condition is asked again until it holds or the time is up.

use anyhow::{Result, bail};
use std::time::{Duration, Instant};

/// How often a condition is asked.
const STEP: Duration = Duration::from_millis(20);

/// Rests for a while between two looks at something that sends no event.
#[expect(
    clippy::disallowed_methods,
    reason = "the driver is a plain program; it watches other processes by asking"
)]
pub fn pause(time: Duration) {
    std::thread::sleep(time);
}

/// Asks until `look` answers with a value.
///
/// # Errors
/// When the limit has passed; the message names what was waited for and the last answer.
pub fn until<T>(
    what: &str,
    limit: Duration,
    mut look: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    let start = Instant::now();
    loop {
        let last = match look() {
            Ok(Some(value)) => return Ok(value),
            Ok(None) => None,
            Err(error) => Some(error),
        };
        if start.elapsed() > limit {
            match last {
                None => bail!("waited {limit:?} in vain for {what}"),
                Some(error) => return Err(error.context(format!("waited {limit:?} for {what}"))),
            }
        }
        pause(STEP);
    }
}
