//! Delays: so that of two nodes that fence each other the one survives that matters more.

use super::device::Device;
use super::hosts::pairs;
use crate::cib::parse_duration_ms;

/// What a resource instance counts in [`priority_delay_ms`]: its priority, one more when it is promoted and counts at all.
#[must_use]
pub const fn weight(priority: i64, promoted: bool) -> i64 {
    priority.saturating_add((promoted && priority != 0) as i64)
}

/// How long this side waits before it fences the other (`priority-fencing-delay`), in milliseconds. The side with more weight waits 0.
/// Of two equal sides the one whose name comes first waits 0: one of them has to. (Pacemaker lets neither wait then.)
#[must_use]
pub fn priority_delay_ms(delay_ms: u64, here: (&str, i64), there: (&str, i64)) -> u64 {
    let stronger = match here.1.cmp(&there.1) {
        std::cmp::Ordering::Greater => true,
        std::cmp::Ordering::Less => false,
        std::cmp::Ordering::Equal => here.0 <= there.0,
    };
    if stronger { 0 } else { delay_ms }
}

/// A random number that differs from device to device (splitmix64 over FNV-1a).
fn mixed(dice: u64, name: &str) -> u64 {
    let mut x = name.bytes().fold(0xcbf2_9ce4_8422_2325_u64 ^ dice, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

impl Device {
    /// Its own delay before it fences `target`: `pcmk_delay_base`, and at random up to `pcmk_delay_max` where that is more; both also as
    /// `NODE:DELAY;NODE:DELAY`. In milliseconds.
    #[must_use]
    pub fn delay_ms(&self, target: &str, dice: u64) -> u64 {
        let own = |name: &str| {
            let text = self.params.get(name)?;
            let map = pairs(text);
            if map.is_empty() {
                return parse_duration_ms(text);
            }
            let found = map.into_iter().find(|(node, _)| node.eq_ignore_ascii_case(target));
            found.and_then(|(_, delay)| parse_duration_ms(&delay))
        };
        let base = own("pcmk_delay_base").unwrap_or(0);
        let max = own("pcmk_delay_max").unwrap_or(0);
        match max.checked_sub(base) {
            Some(span) if span > 0 => base + mixed(dice, &self.id) % span.saturating_add(1).max(1),
            Some(_) | None => base,
        }
    }
}
