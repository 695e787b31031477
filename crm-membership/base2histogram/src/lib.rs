//! What openraft asks of its crate for histograms, in 2 KiB each. The published crate fills tables for sixteen precisions, 26 MiB, when the
//! first histogram is made, and openraft uses one of them, for statistics that nobody reads here (ADR-0020).
//!
//! Buckets are a quarter of an octave wide: a percentile is the least value of its bucket, at most a quarter below the true one.

use std::fmt;
use std::marker::PhantomData;

/// Values below this have a bucket each.
const EXACT: u64 = 4;
/// Exact values, and four buckets for each of the 62 octaves from 4 on.
const BUCKETS: usize = 4 + 62 * 4;

fn bucket_of(value: u64) -> usize {
    let index = if value < EXACT {
        value
    } else {
        let octave = u64::from(value.ilog2());
        (octave - 1) * EXACT + (value >> (octave - 2) & 3)
    };
    usize::try_from(index).unwrap_or(BUCKETS - 1)
}

fn least_of(bucket: usize) -> u64 {
    let bucket = u64::try_from(bucket).unwrap_or(u64::MAX);
    if bucket < EXACT { bucket } else { (EXACT + bucket % EXACT) << (bucket / EXACT - 1) }
}

/// Counts of values. `T` is what the published crate attaches to slots of time, which are not here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Histogram<T = ()> {
    counts: Box<[u64; BUCKETS]>,
    of: PhantomData<T>,
}

impl<T> Default for Histogram<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> Histogram<T> {
    /// With nothing in it.
    #[must_use]
    pub fn new() -> Self {
        Self { counts: Box::new([0; BUCKETS]), of: PhantomData }
    }

    /// Counts a value.
    pub fn record(&mut self, value: u64) {
        self.record_n(value, 1);
    }

    /// Counts a value so many times.
    pub fn record_n(&mut self, value: u64, count: u64) {
        if let Some(bucket) = self.counts.get_mut(bucket_of(value)) {
            *bucket = bucket.saturating_add(count);
        }
    }

    /// How many were counted.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.counts.iter().fold(0, |sum, count| sum.saturating_add(*count))
    }

    /// The value below which `millis` thousandths of all are; 0 when there are none.
    fn permille(&self, millis: u64) -> u64 {
        let rank = u128::from(self.total()) * u128::from(millis);
        let mut seen = 0_u128;
        let found = self.counts.iter().position(|count| {
            seen += u128::from(*count) * 1000;
            *count > 0 && seen >= rank
        });
        found.map_or(0, least_of)
    }

    /// The usual percentiles.
    #[must_use]
    pub fn percentile_stats(&self) -> PercentileStats {
        let [p0_1, p1, p5, p10, p50, p90, p99, p99_9] =
            [1, 10, 50, 100, 500, 900, 990, 999].map(|millis| self.permille(millis));
        PercentileStats { samples: self.total(), p0_1, p1, p5, p10, p50, p90, p99, p99_9 }
    }
}

/// Percentiles of a [`Histogram`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PercentileStats {
    /// How many values.
    pub samples: u64,
    /// A thousandth is below.
    pub p0_1: u64,
    /// A hundredth is below.
    pub p1: u64,
    /// A twentieth is below.
    pub p5: u64,
    /// A tenth is below.
    pub p10: u64,
    /// The median.
    pub p50: u64,
    /// Nine tenths are below.
    pub p90: u64,
    /// All but a hundredth are below.
    pub p99: u64,
    /// All but a thousandth are below.
    pub p99_9: u64,
}

impl fmt::Display for PercentileStats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { samples, p50, p90, p99, .. } = self;
        write!(f, "{samples} values, median {p50}, 90 % below {p90}, 99 % below {p99}")
    }
}

/// Several histograms for people, a line each.
#[derive(Debug, Clone, Default)]
pub struct AsciiChart {
    lines: Vec<(String, PercentileStats)>,
}

impl AsciiChart {
    /// With nothing in it.
    #[must_use]
    pub const fn new() -> Self {
        Self { lines: Vec::new() }
    }

    /// Adds a histogram under a name.
    #[must_use]
    #[expect(clippy::needless_pass_by_value, reason = "openraft calls it so")]
    pub fn add(mut self, name: impl Into<String>, histogram: Histogram) -> Self {
        self.lines.push((name.into(), histogram.percentile_stats()));
        self
    }
}

impl fmt::Display for AsciiChart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.lines.iter().try_for_each(|(name, stats)| writeln!(f, "{name}: {stats}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_has_a_bucket_whose_least_is_at_most_a_quarter_below_it() {
        let edges = (0..64).map(|bit| 1_u64 << bit);
        let values = edges.flat_map(|v| [v.saturating_sub(1), v, v.saturating_add(v / 3)]);
        for value in values.chain([u64::MAX]) {
            let (bucket, least) = (bucket_of(value), least_of(bucket_of(value)));
            assert!(bucket < BUCKETS, "{value}");
            assert!(least <= value && value - least <= value / 4, "{value}: {least}");
        }
        assert_eq!(bucket_of(u64::MAX), BUCKETS - 1);
    }

    #[test]
    fn percentiles_are_those_of_what_was_counted() {
        let mut histogram = Histogram::<()>::new();
        assert_eq!(histogram.percentile_stats().p50, 0);
        histogram.record_n(2, 90);
        histogram.record_n(64, 9);
        histogram.record(1024);
        let stats = histogram.percentile_stats();
        assert_eq!(
            (stats.samples, stats.p50, stats.p90, stats.p99, stats.p99_9),
            (100, 2, 2, 64, 1024)
        );
        let chart = AsciiChart::new().add("a", histogram).to_string();
        assert_eq!(chart, "a: 100 values, median 2, 90 % below 2, 99 % below 64\n");
    }
}
