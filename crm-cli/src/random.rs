//! Random numbers for first data generations, from the kernel.

use crate::fail::Fail;
use anyhow::Context;
use std::io::Read;

/// A random number that is not zero.
pub(crate) fn nonzero() -> Result<u64, Fail> {
    let mut file = std::fs::File::open("/dev/urandom").context("open /dev/urandom")?;
    loop {
        let mut bytes = [0_u8; 8];
        file.read_exact(&mut bytes).context("read /dev/urandom")?;
        let number = u64::from_ne_bytes(bytes);
        if number != 0 {
            return Ok(number);
        }
    }
}
