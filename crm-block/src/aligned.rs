//! Placeholder; the front-end author fills it.

/// Bytes aligned to 4096.
#[derive(Debug)]
pub struct AlignedBuf;
