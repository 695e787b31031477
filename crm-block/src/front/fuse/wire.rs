//! The FUSE kernel protocol, as far as one file needs it: offsets and constants of `linux/fuse.h`, 7.31 and later.

/// Bytes before the payload of a WRITE: request header (40) and `fuse_write_in` (40).
pub(super) const HEAD_BYTES: usize = 80;
const REQUEST_HEADER: usize = 40;
/// Largest WRITE and READ.
pub(super) const MAX_IO: u32 = 1 << 20;
/// The directory.
pub(super) const ROOT: u64 = 1;
/// The one file.
pub(super) const FILE: u64 = 2;
/// Its name.
pub(super) const FILE_NAME: &str = "disk";
/// Attributes never change behind the kernel's back: 34 years.
const VALID_SECONDS: u64 = 1 << 30;

const ASYNC_READ: u64 = 1;
const BIG_WRITES: u64 = 1 << 5;
const ASYNC_DIO: u64 = 1 << 15;
const PARALLEL_DIROPS: u64 = 1 << 18;
const MAX_PAGES: u64 = 1 << 22;
const INIT_EXT: u64 = 1 << 30;
const HAS_RESEND: u64 = 1 << 39;

const FOPEN_DIRECT_IO: u32 = 1;
const FOPEN_NOFLUSH: u32 = 1 << 5;
const FOPEN_PARALLEL_DIRECT_WRITES: u32 = 1 << 6;

const FATTR_SIZE: u32 = 1 << 3;
const FALLOC_PUNCH_HOLE: u32 = 2;
const FALLOC_ZERO_RANGE: u32 = 16;
/// Notification code: send every request in flight again.
const NOTIFY_RESEND: i32 = 7;

/// A request of the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Call {
    /// Names of the directory; true = the file's.
    Lookup {
        found: bool,
    },
    GetAttr,
    /// Attributes other than the size are accepted and ignored.
    SetAttr {
        size: Option<u64>,
    },
    Open,
    OpenDir,
    /// The listing is empty: nobody lists it.
    ReadDir,
    Read {
        offset: u64,
        len: u32,
    },
    /// The payload follows the head.
    Write {
        offset: u64,
        len: u32,
    },
    Fsync,
    PunchHole {
        offset: u64,
        len: u64,
    },
    ZeroRange {
        offset: u64,
        len: u64,
    },
    StatFs,
    Init {
        major: u32,
        minor: u32,
        readahead: u32,
        flags: u64,
    },
    /// Answered with success and nothing else.
    Close,
    /// Must not be answered.
    Forget,
    /// Not offered; the kernel remembers and does without.
    Other {
        opcode: u32,
    },
}

/// A request with its header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Request {
    /// To be repeated in the answer.
    pub(super) unique: u64,
    /// [`ROOT`] or [`FILE`].
    pub(super) node: u64,
    /// What is asked.
    pub(super) call: Call,
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let field = bytes.get(at..at + 4).and_then(|field| <[u8; 4]>::try_from(field).ok());
    field.map_or(0, u32::from_ne_bytes)
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let field = bytes.get(at..at + 8).and_then(|field| <[u8; 8]>::try_from(field).ok());
    field.map_or(0, u64::from_ne_bytes)
}

/// Reads the first [`HEAD_BYTES`] of a message of `len` bytes.
pub(super) fn parse(head: &[u8; HEAD_BYTES], len: usize) -> Option<Request> {
    if len < REQUEST_HEADER || usize::try_from(u32_at(head, 0)) != Ok(len) {
        return None;
    }
    let args = &head[REQUEST_HEADER..];
    let call = match u32_at(head, 4) {
        1 => {
            let name_len = FILE_NAME.len() + 1;
            let found = len == REQUEST_HEADER + name_len
                && args[..FILE_NAME.len()] == *FILE_NAME.as_bytes();
            Call::Lookup { found }
        }
        2 | 42 => Call::Forget,
        3 => Call::GetAttr,
        4 => {
            let sized = u32_at(args, 0) & FATTR_SIZE != 0;
            Call::SetAttr { size: sized.then(|| u64_at(args, 16)) }
        }
        14 => Call::Open,
        15 => Call::Read { offset: u64_at(args, 8), len: u32_at(args, 16) },
        16 => {
            let payload = u32_at(args, 16);
            if usize::try_from(payload).ok()?.checked_add(HEAD_BYTES)? != len {
                return None;
            }
            Call::Write { offset: u64_at(args, 8), len: payload }
        }
        17 => Call::StatFs,
        18 | 29 | 38 => Call::Close,
        20 => Call::Fsync,
        26 => {
            let low = u64::from(u32_at(args, 12));
            let high = if len >= REQUEST_HEADER + 20 { u64::from(u32_at(args, 16)) } else { 0 };
            Call::Init {
                major: u32_at(args, 0),
                minor: u32_at(args, 4),
                readahead: u32_at(args, 8),
                flags: low | high << 32,
            }
        }
        27 => Call::OpenDir,
        28 => Call::ReadDir,
        43 => {
            let (offset, len, mode) = (u64_at(args, 8), u64_at(args, 16), u32_at(args, 24));
            if mode & FALLOC_PUNCH_HOLE != 0 {
                Call::PunchHole { offset, len }
            } else if mode & FALLOC_ZERO_RANGE != 0 {
                Call::ZeroRange { offset, len }
            } else {
                Call::Other { opcode: 43 }
            }
        }
        opcode => Call::Other { opcode },
    };
    Some(Request { unique: u64_at(head, 8), node: u64_at(head, 16), call })
}

/// Header of an answer with `payload` bytes; `error` = 0 or a positive errno.
pub(super) fn answer_header(unique: u64, error: i32, payload: usize) -> [u8; 16] {
    let len = u32::try_from(16 + payload).expect("answers are at most 1 MiB and a header");
    let mut header = [0; 16];
    header[..4].copy_from_slice(&len.to_ne_bytes());
    header[4..8].copy_from_slice(&error.wrapping_neg().to_ne_bytes());
    header[8..].copy_from_slice(&unique.to_ne_bytes());
    header
}

/// The notification that makes the kernel send every request in flight again.
pub(super) fn resend() -> [u8; 16] {
    let mut header = [0; 16];
    header[..4].copy_from_slice(&16u32.to_ne_bytes());
    header[4..8].copy_from_slice(&NOTIFY_RESEND.to_ne_bytes());
    header
}

/// Little builder of reply structures.
#[derive(Debug, Default)]
struct Fields(Vec<u8>);

impl Fields {
    fn u16(mut self, value: u16) -> Self {
        self.0.extend_from_slice(&value.to_ne_bytes());
        self
    }

    fn u32(mut self, value: u32) -> Self {
        self.0.extend_from_slice(&value.to_ne_bytes());
        self
    }

    fn u64(mut self, value: u64) -> Self {
        self.0.extend_from_slice(&value.to_ne_bytes());
        self
    }

    fn zeroes(mut self, count: usize) -> Self {
        self.0.resize(self.0.len() + count, 0);
        self
    }

    /// `struct fuse_attr`, 88 bytes.
    fn attr(self, node: u64, size_bytes: u64) -> Self {
        let directory = node == ROOT;
        let (mode, size) = if directory { (0o040_700, 0) } else { (0o100_600, size_bytes) };
        let fields = self.u64(node).u64(size).u64(size / 512).zeroes(3 * 8 + 3 * 4);
        fields.u32(mode).u32(1).zeroes(3 * 4).u32(4096).u32(0)
    }
}

/// What we want of the kernel's offers.
fn wanted(offered: u64) -> u64 {
    let all =
        ASYNC_READ | BIG_WRITES | ASYNC_DIO | PARALLEL_DIROPS | MAX_PAGES | INIT_EXT | HAS_RESEND;
    all & offered
}

/// Whether the kernel can send requests in flight again (6.9 and later).
pub(super) fn offers_resend(offered: u64) -> bool {
    offered & HAS_RESEND != 0
}

/// `struct fuse_init_out`.
pub(super) fn init_answer(minor: u32, readahead: u32, offered: u64) -> Vec<u8> {
    let [f0, f1, f2, f3, f4, f5, f6, f7] = wanted(offered).to_le_bytes();
    Fields::default()
        .u32(7)
        .u32(minor.min(40))
        .u32(readahead)
        .u32(u32::from_le_bytes([f0, f1, f2, f3]))
        .u16(512) // max_background: the default, 12, halves the throughput
        .u16(400) // congestion threshold
        .u32(MAX_IO)
        .u32(1) // time granularity, ns
        .u16(256) // max_pages: 1 MiB
        .u16(0)
        .u32(u32::from_le_bytes([f4, f5, f6, f7]))
        .zeroes(28)
        .0
}

/// `struct fuse_entry_out` of the file.
pub(super) fn entry_answer(size_bytes: u64) -> Vec<u8> {
    let fields = Fields::default().u64(FILE).u64(0).u64(VALID_SECONDS).u64(VALID_SECONDS);
    fields.zeroes(8).attr(FILE, size_bytes).0
}

/// `struct fuse_attr_out`.
pub(super) fn attr_answer(node: u64, size_bytes: u64) -> Vec<u8> {
    Fields::default().u64(VALID_SECONDS).zeroes(8).attr(node, size_bytes).0
}

/// `struct fuse_open_out`; `parallel`: writes of one opener may come before the last one is answered.
pub(super) fn open_answer(node: u64, parallel: bool) -> Vec<u8> {
    let flags = match (node, parallel) {
        (FILE, true) => FOPEN_DIRECT_IO | FOPEN_NOFLUSH | FOPEN_PARALLEL_DIRECT_WRITES,
        (FILE, false) => FOPEN_DIRECT_IO | FOPEN_NOFLUSH,
        _ => 0,
    };
    Fields::default().u64(0).u32(flags).u32(0).0
}

/// `struct fuse_write_out`.
pub(super) fn write_answer(len: u32) -> [u8; 8] {
    let mut answer = [0; 8];
    answer[..4].copy_from_slice(&len.to_ne_bytes());
    answer
}

/// `struct fuse_kstatfs`.
pub(super) fn statfs_answer(size_bytes: u64) -> Vec<u8> {
    let fields = Fields::default().u64(size_bytes / 4096).zeroes(4 * 8);
    fields.u32(4096).u32(255).u32(4096).zeroes(4 + 24).0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_have_the_sizes_of_the_kernel_header() {
        assert_eq!(init_answer(40, 0, u64::MAX).len(), 64);
        assert_eq!(entry_answer(4096).len(), 128);
        assert_eq!(attr_answer(FILE, 4096).len(), 104);
        assert_eq!(open_answer(FILE, true).len(), 16);
        assert_eq!(statfs_answer(4096).len(), 80);
    }

    #[test]
    fn a_write_whose_length_does_not_fit_is_refused() {
        let mut head = [0; HEAD_BYTES];
        let total = u32::try_from(HEAD_BYTES + 4096).unwrap();
        head[..4].copy_from_slice(&total.to_ne_bytes());
        head[4..8].copy_from_slice(&16u32.to_ne_bytes());
        head[56..60].copy_from_slice(&4096u32.to_ne_bytes());
        let good = parse(&head, HEAD_BYTES + 4096).unwrap();
        assert_eq!(good.call, Call::Write { offset: 0, len: 4096 });
        head[56..60].copy_from_slice(&8192u32.to_ne_bytes());
        assert_eq!(parse(&head, HEAD_BYTES + 4096), None);
        assert_eq!(parse(&head, HEAD_BYTES), None);
    }

    #[test]
    fn only_the_file_is_found() {
        let request = |name: &str| {
            let mut head = [0; HEAD_BYTES];
            let len = 40 + name.len() + 1;
            head[..4].copy_from_slice(&u32::try_from(len).unwrap().to_ne_bytes());
            head[4..8].copy_from_slice(&1u32.to_ne_bytes());
            head[40..40 + name.len()].copy_from_slice(name.as_bytes());
            parse(&head, len).unwrap().call
        };
        assert_eq!(request("disk"), Call::Lookup { found: true });
        assert_eq!(request("disc"), Call::Lookup { found: false });
        assert_eq!(request("disk2"), Call::Lookup { found: false });
    }

    #[test]
    fn errors_are_negative_on_the_wire() {
        let header = answer_header(7, nix::libc::EIO, 0);
        assert_eq!(i32::from_ne_bytes(header[4..8].try_into().unwrap()), -nix::libc::EIO);
    }
}
