//! Over which of its links a peer is called. A decision only: what is known comes in, a link goes out.

use std::time::{Duration, Instant};

/// What is known of one link to a peer.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Path {
    /// Its heartbeats say that it carries both ways; since when.
    pub(crate) up: Option<Instant>,
    /// When the newest of our beats on it that the peer has heard was sent.
    pub(crate) answered: Option<Instant>,
    /// When a call over it failed last.
    pub(crate) doubted: Option<Instant>,
}

impl Path {
    /// Up, and no call has failed since something of ours came through.
    fn is_trusted(&self) -> bool {
        let doubt_over = |at| self.answered.is_some_and(|answered| answered > at);
        self.up.is_some() && self.doubted.is_none_or(doubt_over)
    }

    /// Trusted without a break for so long: going back to it is no gamble.
    fn is_settled(&self, now: Instant, settle: Duration) -> bool {
        let old = |at| now.saturating_duration_since(at) >= settle;
        self.is_trusted() && self.up.is_some_and(old) && self.doubted.is_none_or(old)
    }
}

/// The link to use now. The first in their order, but a link that is in use and works is left only for an earlier one that is settled;
/// one that does not work is left at once, unless no other is better.
pub(crate) fn choose(now: Instant, paths: &[Path], current: usize, settle: Duration) -> usize {
    let first = |fits: &dyn Fn(&Path) -> bool| paths.iter().position(fits);
    let used = paths.get(current);
    if let Some(earlier) =
        first(&|path| path.is_settled(now, settle)).filter(|link| *link < current)
    {
        return earlier;
    }
    if used.is_some_and(Path::is_trusted) {
        return current;
    }
    let trusted = first(&Path::is_trusted);
    let kept = used.filter(|path| path.up.is_some()).map(|_| current);
    let up = first(&|path| path.up.is_some());
    let listed = used.map(|_| current);
    trusted.or(kept).or(up).or(listed).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SETTLE: Duration = Duration::from_millis(1800);

    /// Links at 10 s, by words: `up AGE`, then `answered AGE` and `doubted AGE` in milliseconds ago, or `down`.
    fn check(links: &[&str], current: usize, want: usize) {
        let now = Instant::now() + Duration::from_secs(10);
        let path = |text: &&str| {
            let mut words = text.split(' ');
            let mut path = Path::default();
            while let Some(word) = words.next() {
                let ago = words.next().and_then(|ms| ms.parse().ok()).map(Duration::from_millis);
                let at = ago.and_then(|ago| now.checked_sub(ago));
                match word {
                    "up" => path.up = at,
                    "answered" => path.answered = at,
                    "doubted" => path.doubted = at,
                    _ => {}
                }
            }
            path
        };
        let paths: Vec<Path> = links.iter().map(path).collect();
        assert_eq!(choose(now, &paths, current, SETTLE), want, "{links:?} from {current}");
    }

    #[test]
    fn the_first_link_is_used_until_it_is_down_and_again_when_it_has_settled() {
        check(&["up 5000", "up 5000"], 0, 0);
        check(&["down", "up 100"], 0, 1);
        check(&["up 100", "up 5000"], 1, 1);
        check(&["up 1800", "up 5000"], 1, 0);
        check(&["down", "up 5000", "up 9000"], 2, 1);
        check(&["down", "up 500", "up 9000"], 2, 2);
    }

    #[test]
    fn a_failed_call_is_enough_to_leave_a_link_and_an_answered_beat_to_trust_it_again() {
        check(&["up 5000 answered 90 doubted 10", "up 5000 answered 90"], 0, 1);
        check(&["up 5000 answered 10 doubted 90", "up 5000"], 0, 0);
        check(&["up 5000 answered 10 doubted 90", "up 5000"], 1, 1);
        check(&["up 5000 answered 10 doubted 2000", "up 5000"], 1, 0);
    }

    #[test]
    fn without_a_better_one_the_link_in_use_is_kept() {
        check(&["down", "down"], 1, 1);
        check(&["up 100 doubted 5", "up 100 doubted 5"], 1, 1);
        check(&["up 100 doubted 5", "down"], 0, 0);
        check(&["up 100 doubted 5", "down"], 1, 0);
        check(&["down"], 3, 0);
        check(&[], 0, 0);
    }
}
