//! Scores: integers that saturate at plus and minus one million ("infinity"); minus infinity wins.

use serde::{Deserialize, Serialize};
use std::fmt;

/// A score as Pacemaker has it.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
pub struct Score(i32);

impl Score {
    /// Plus infinity.
    pub const INF: Self = Self(1_000_000);
    /// Minus infinity.
    pub const NEG_INF: Self = Self(-1_000_000);
    /// Zero.
    pub const ZERO: Self = Self(0);

    /// A score, clamped to the infinities.
    #[must_use]
    pub const fn new(value: i64) -> Self {
        if value >= 1_000_000 {
            Self::INF
        } else if value <= -1_000_000 {
            Self::NEG_INF
        } else {
            #[expect(clippy::cast_possible_truncation, reason = "bounded just above")]
            Self(value as i32)
        }
    }

    /// The number, infinities as ±1,000,000.
    #[must_use]
    pub const fn value(self) -> i32 {
        self.0
    }

    /// Sum; minus infinity beats plus infinity, both beat the rest.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        if self == Self::NEG_INF || other == Self::NEG_INF {
            Self::NEG_INF
        } else if self == Self::INF || other == Self::INF {
            Self::INF
        } else {
            Self::new(i64::from(self.0) + i64::from(other.0))
        }
    }

    /// Negation.
    #[must_use]
    pub const fn negated(self) -> Self {
        Self(-self.0)
    }

    /// True for either infinity.
    #[must_use]
    pub const fn is_infinite(self) -> bool {
        self.0 == Self::INF.0 || self.0 == Self::NEG_INF.0
    }

    /// Reads `inf`, `-INFINITY`, `+100`, `mandatory`, `advisory`, any case. `None` when it is no score.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let lower = text.to_ascii_lowercase();
        let (sign, word) = match lower.strip_prefix('-') {
            Some(rest) => (-1, rest),
            None => (1, lower.strip_prefix('+').unwrap_or(&lower)),
        };
        match word {
            "inf" | "infinity" | "mandatory" => Some(Self::new(sign * 1_000_000)),
            "advisory" => Some(Self::ZERO),
            _ if word.is_empty() || !word.bytes().all(|b| b.is_ascii_digit()) => None,
            _ => Some(Self::new(sign.saturating_mul(word.parse().unwrap_or(i64::MAX)))),
        }
    }

    /// The number that a text begins with: how Pacemaker reads what is no score (`1.0` is 1).
    #[must_use]
    pub fn leading(text: &str) -> Option<Self> {
        let text = text.trim_start();
        let sign = usize::from(text.starts_with(['-', '+']));
        let digits = text.bytes().skip(sign).take_while(u8::is_ascii_digit).count();
        text.get(..sign + digits).and_then(Self::parse)
    }
}

impl fmt::Display for Score {
    /// As the crm shell prints it: `inf`, `-inf` or the number.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::INF => f.write_str("inf"),
            Self::NEG_INF => f.write_str("-inf"),
            Self(n) => write!(f, "{n}"),
        }
    }
}
