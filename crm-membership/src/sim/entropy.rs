//! The one source of randomness of a simulated run: every library (hash maps, tokio's `select!`, rand, TLS, uuids) ends in the C
//! library's `getrandom`; this one takes its place in the test program and answers from a fixed stream once it is told to.
#![expect(unsafe_code, reason = "takes the place of a C function")]

use nix::libc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Where the fixed stream is; 0: the kernel is asked, as ever.
static STREAM: AtomicU64 = AtomicU64::new(0);

/// From now on this process knows no chance.
pub(super) fn fix(seed: u64) {
    STREAM.store(seed | 1 << 63, Ordering::Release);
}

#[unsafe(no_mangle)]
extern "C" fn getrandom(buffer: *mut u8, length: usize, flags: libc::c_uint) -> libc::ssize_t {
    if STREAM.load(Ordering::Acquire) == 0 {
        // SAFETY: the caller's own arguments, for the system call that they are meant for.
        let got = unsafe { libc::syscall(libc::SYS_getrandom, buffer, length, flags) };
        return libc::ssize_t::try_from(got).unwrap_or(-1);
    }
    for place in 0..length {
        let byte = super::mixed(STREAM.fetch_add(super::STEP, Ordering::AcqRel)).to_le_bytes()[0];
        // SAFETY: the caller has `length` bytes there (getrandom(2)).
        unsafe { *buffer.add(place) = byte };
    }
    libc::ssize_t::try_from(length).unwrap_or(-1)
}
