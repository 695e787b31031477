//! What the nodes claim of the leadership, and how long a claim may outlive its truth.

use std::collections::BTreeMap;

/// Turns that a node may need until it has looked at its clock again after a leap.
const TURNS: u32 = 3;

/// A node's claim at one step.
#[derive(Debug, Clone, Copy)]
pub(super) struct Claim {
    pub(super) number: u8,
    pub(super) term: u64,
    pub(super) me_leader: bool,
    pub(super) quorate: bool,
    /// The node's own clock, in milliseconds.
    pub(super) own: u64,
}

/// What they may claim, in milliseconds.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// A leader's claim after another one's of a later term began, by the old leader's clock.
    pub(super) leads: u64,
    /// A claim of a quorum in an earlier term after a leader's of a later term began, by true time (no clock is slower).
    pub(super) quorate: u64,
}

/// The history of the claims.
#[derive(Debug)]
pub(super) struct Claims {
    limits: Limits,
    /// Leaders that another one has replaced and that do not know: term, their clock when that began, steps beyond the limit.
    replaced: BTreeMap<u8, (u64, u64, u32)>,
    /// When the newest term had its first claim.
    newest: (u64, u64),
    /// Longest claims seen beside or after a later one's: leaders, others.
    pub(super) longest: (u64, u64),
}

impl Claims {
    pub(super) const fn new(limits: Limits) -> Self {
        Self { limits, replaced: BTreeMap::new(), newest: (0, 0), longest: (0, 0) }
    }

    /// Looks at all claims of a millisecond.
    pub(super) fn look(&mut self, now: u64, claims: &[Claim]) -> Result<(), String> {
        let top = claims.iter().filter(|c| c.me_leader).map(|c| c.term).max().unwrap_or(0);
        if top > self.newest.0 {
            self.newest = (top, now);
        }
        let newest = self.newest;
        let outlived = |c: &&Claim| c.me_leader && c.term < newest.0;
        let still: BTreeMap<u8, u64> =
            claims.iter().filter(outlived).map(|c| (c.number, c.term)).collect();
        self.replaced.retain(|number, (term, _, _)| still.get(number) == Some(term));
        for claim in claims.iter().filter(outlived) {
            let entry = self.replaced.entry(claim.number).or_insert((claim.term, claim.own, 0));
            let lasts = claim.own - entry.1;
            if lasts <= self.limits.leads {
                self.longest.0 = self.longest.0.max(lasts);
                continue;
            }
            entry.2 += 1;
            if entry.2 > TURNS {
                return Err(format!(
                    "n{} says that it leads term {} {lasts} ms (its clock) after term {} had a leader",
                    claim.number, claim.term, newest.0
                ));
            }
        }
        for claim in claims.iter().filter(|c| c.quorate && c.term < newest.0) {
            let lasts = now - newest.1;
            self.longest.1 = self.longest.1.max(lasts);
            if lasts > self.limits.quorate {
                return Err(format!(
                    "n{} says that term {} has a quorum {lasts} ms after term {} had a leader",
                    claim.number, claim.term, newest.0
                ));
            }
        }
        Ok(())
    }
}
#[cfg(test)]
mod tests {
    use super::{Claim, Claims, Limits};

    const LIMITS: Limits = Limits { leads: 450, quorate: 1_600 };

    /// Node 1 led term 1, node 2 leads term 2 since 0 ms; by its own clock `own(ms)` node 1 keeps its claim until `until`.
    fn replaced(until: u64, own: impl Fn(u64) -> u64) -> Result<(u64, u64), String> {
        let mut claims = Claims::new(LIMITS);
        for now in 0..2_000 {
            let old =
                Claim { number: 1, term: 1, me_leader: now < until, quorate: true, own: own(now) };
            let new = Claim { number: 2, term: 2, me_leader: true, quorate: true, own: now };
            let old = Claim { quorate: now < until, ..old };
            claims.look(now, &[old, new])?;
        }
        Ok(claims.longest)
    }

    #[test]
    fn a_replaced_leader_has_its_lease_by_its_own_clock_and_no_more() {
        assert_eq!(replaced(400, |now| now), Ok((399, 399)));
        assert!(replaced(500, |now| now).is_err());
        assert_eq!(replaced(800, |now| now / 2), Ok((399, 799)), "half as fast, twice as long");
        assert!(replaced(400, |now| now * 2).is_err());
    }

    #[test]
    fn a_lease_that_does_not_see_a_leap_of_its_own_clock_is_found_out() {
        let leaps = |now| if now < 100 { now } else { now + 5_000 };
        assert!(replaced(102, leaps).is_ok(), "it has had no turn yet");
        assert!(replaced(300, leaps).is_err());
    }

    #[test]
    fn a_quorum_of_before_is_not_believed_for_ever() {
        let mut claims = Claims::new(LIMITS);
        let follower = Claim { number: 3, term: 1, me_leader: false, quorate: true, own: 0 };
        let leader = Claim { number: 2, term: 2, me_leader: true, quorate: true, own: 0 };
        for now in 0..=1_600 {
            claims.look(now, &[follower, leader]).unwrap();
        }
        assert!(claims.look(1_601, &[follower, leader]).is_err());
    }
}
