//! The system calls without a safe wrapper: real-time priority of the calling thread.
#![expect(unsafe_code, reason = "sched_setscheduler and mlockall flags have no safe wrapper")]

use nix::errno::Errno;
use nix::libc;
use nix::sys::resource::{Resource, getrlimit};

/// Middle of the usual range: above other daemons, below the kernel's own threads.
const PRIORITY: libc::c_int = 10;

/// Gives the calling thread round-robin real-time priority; children do not inherit it.
pub(crate) fn run_in_real_time() -> Result<(), Errno> {
    let parameters = libc::sched_param { sched_priority: PRIORITY };
    // SAFETY: 0 is the calling thread; the parameters live on this stack and are only read.
    let result = unsafe {
        libc::sched_setscheduler(
            0,
            libc::SCHED_RR | libc::SCHED_RESET_ON_FORK,
            &raw const parameters,
        )
    };
    Errno::result(result).map(drop)
}

/// Locks the pages of this process that are in use, now and later, so that a heartbeat never waits for
/// swap. Only where the limit is off: with a limit, later allocations would fail.
pub(crate) fn lock_memory() -> Result<(), Errno> {
    let (soft, _) = getrlimit(Resource::RLIMIT_MEMLOCK)?;
    if soft != libc::RLIM_INFINITY && !nix::unistd::geteuid().is_root() {
        return Err(Errno::EPERM);
    }
    // SAFETY: plain flags; no memory of ours is passed.
    let result =
        unsafe { libc::mlockall(libc::MCL_CURRENT | libc::MCL_FUTURE | libc::MCL_ONFAULT) };
    Errno::result(result).map(drop)
}
