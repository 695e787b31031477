//! Ordered name/value sets, as written. Last writer wins on a repeated name.

use serde::{Deserialize, Serialize};

/// One name and its value; `None` is a name without a value attribute.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Nv {
    /// Name.
    pub name: String,
    /// Value as written.
    pub value: Option<String>,
}

/// An ordered set of name/value pairs (an attribute set of the CIB).
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct NvSet {
    /// Explicit set id, when the user gave one.
    pub id: Option<String>,
    /// Pairs in document order, names unique.
    pub pairs: Vec<Nv>,
}

impl NvSet {
    /// The value of `name`, if it has one.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.pairs.iter().find(|p| p.name == name).and_then(|p| p.value.as_deref())
    }

    /// Sets `name`, keeping its place when it is already there.
    pub fn set(&mut self, name: &str, value: &str) {
        let value = Some(value.to_owned());
        match self.pairs.iter_mut().find(|p| p.name == name) {
            Some(pair) => pair.value = value,
            None => self.pairs.push(Nv { name: name.to_owned(), value }),
        }
    }

    /// Removes `name`; tells whether it was there.
    pub fn unset(&mut self, name: &str) -> bool {
        let before = self.pairs.len();
        self.pairs.retain(|p| p.name != name);
        self.pairs.len() != before
    }

    /// True without any pair.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.pairs.is_empty()
    }

    /// Pacemaker's booleans: `true on yes y 1`, any case. `None` when absent or not a boolean.
    #[must_use]
    pub fn flag(&self, name: &str) -> Option<bool> {
        parse_bool(self.get(name)?)
    }
}

/// Reads one of Pacemaker's boolean words.
#[must_use]
pub fn parse_bool(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "on" | "yes" | "y" | "1" => Some(true),
        "false" | "off" | "no" | "n" | "0" => Some(false),
        _ => None,
    }
}

/// Reads a Pacemaker duration (`15s`, `15`, `500ms`, `1min`, `2h`, `PT1M30S`) into milliseconds; bare numbers are seconds.
#[must_use]
pub fn parse_duration_ms(text: &str) -> Option<u64> {
    let text = text.trim();
    if let Some(rest) = text.strip_prefix(['P', 'p']) {
        return parse_iso_duration_ms(rest);
    }
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().ok()?;
    let factor = match unit.trim() {
        "" | "s" | "sec" => 1_000,
        "ms" | "msec" => 1,
        "m" | "min" => 60_000,
        "h" | "hr" => 3_600_000,
        _ => return None,
    };
    number.checked_mul(factor)
}

/// What comes after the `P` of an ISO 8601 duration. `T` may be left out where the unit is clear; months have 30 days, years 365.
fn parse_iso_duration_ms(text: &str) -> Option<u64> {
    let (mut sum, mut number, mut time) = (0_u64, String::new(), false);
    for c in text.chars() {
        if c.is_ascii_digit() {
            number.push(c);
            continue;
        }
        let seconds = match c.to_ascii_uppercase() {
            'T' if number.is_empty() => {
                time = true;
                continue;
            }
            'Y' => 365 * 86_400,
            'M' if !time => 30 * 86_400,
            'W' => 7 * 86_400,
            'D' => 86_400,
            'H' => 3_600,
            'M' => 60,
            'S' => 1,
            _ => return None,
        };
        let count: u64 = number.parse().ok()?;
        number.clear();
        sum = sum.checked_add(count.checked_mul(seconds)?.checked_mul(1_000)?)?;
    }
    (number.is_empty() && !text.is_empty()).then_some(sum)
}
