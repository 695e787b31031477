//! Sizes of volumes: bytes or with a unit, multiples of 4096.

const UNITS: [(&str, u64); 5] =
    [("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];

/// Reads `256MiB`, `256M`, `1g`, `1048576`; units are powers of 1024. `None` when it is no size, zero or no multiple of 4096.
#[must_use]
pub fn parse_size(text: &str) -> Option<u64> {
    let unit = text.trim_start_matches(|c: char| c.is_ascii_digit());
    let number: u64 = text.strip_suffix(unit)?.parse().ok()?;
    let factor = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kib" => 1 << 10,
        "m" | "mib" => 1 << 20,
        "g" | "gib" => 1 << 30,
        "t" | "tib" => 1 << 40,
        _ => return None,
    };
    number.checked_mul(factor).filter(|bytes| *bytes > 0 && bytes % 4096 == 0)
}

/// The shortest exact spelling, `256MiB`.
#[must_use]
pub fn show_size(bytes: u64) -> String {
    for (unit, factor) in UNITS {
        if bytes != 0 && bytes.is_multiple_of(factor) && factor > 1 {
            return format!("{}{unit}", bytes / factor);
        }
    }
    bytes.to_string()
}
