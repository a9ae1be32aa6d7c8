//! A program that does nothing: what a test run costs by itself, to be told apart from what a real program costs in it; and what holds a
//! place without deciding anything.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use aya_obj::generated::{bpf_attach_type, bpf_cmd, bpf_prog_type};

use super::SysError;
use super::call::{address, attr, bpf, bpf_fd, raw};

/// `BPF_ALU64 | BPF_MOV | BPF_K` and `BPF_JMP | BPF_EXIT` (include/uapi/linux/bpf.h).
const MOVE: u8 = 0xb7;
const EXIT: u8 = 0x95;
/// Bytes of `struct __sk_buff`, all zero: given so that the run is made as those of the real programs are.
const CONTEXT: usize = 192;

/// `TCX_NEXT` (include/uapi/linux/bpf.h): whatever else is there decides.
const NEXT: i32 = -1;

/// A loaded classifier of two instructions: return a number.
#[derive(Debug)]
pub struct EmptyProgram(OwnedFd);

impl AsFd for EmptyProgram {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl EmptyProgram {
    /// One that returns 0.
    ///
    /// # Errors
    /// The process may not load programs.
    pub fn load() -> Result<Self, SysError> {
        Self::returning(0)
    }

    /// One that leaves every packet to what comes after it.
    ///
    /// # Errors
    /// The process may not load programs.
    pub fn passing() -> Result<Self, SysError> {
        Self::returning(NEXT)
    }

    fn returning(value: i32) -> Result<Self, SysError> {
        let [a, b, c, d] = value.to_ne_bytes();
        // `struct bpf_insn`: the operation, then registers, offset and value.
        let instructions: [[u8; 8]; 2] = [[MOVE, 0, 0, 0, a, b, c, d], [EXIT, 0, 0, 0, 0, 0, 0, 0]];
        let licence = c"Dual MIT/GPL";
        let mut attr = attr();
        attr.__bindgen_anon_3.prog_type = bpf_prog_type::BPF_PROG_TYPE_SCHED_CLS as u32;
        attr.__bindgen_anon_3.expected_attach_type = bpf_attach_type::BPF_TCX_INGRESS as u32;
        attr.__bindgen_anon_3.insn_cnt = 2;
        attr.__bindgen_anon_3.insns = address(instructions.as_ptr());
        attr.__bindgen_anon_3.license = address(licence.as_ptr());
        // SAFETY: instructions and licence are live for the call, which only reads them, and it returns a new descriptor.
        let fd = unsafe { bpf_fd(bpf_cmd::BPF_PROG_LOAD, &mut attr) }
            .map_err(|source| Self::error("BPF_PROG_LOAD", source))?;
        Ok(Self(fd))
    }

    /// Runs it `repeat` times on a frame of at least 14 bytes; the mean time as the kernel measured it.
    ///
    /// # Errors
    /// The kernel refuses the frame.
    ///
    /// # Panics
    /// If the frame has 4 GiB or more.
    pub fn run(&self, frame: &[u8], repeat: u32) -> Result<Duration, SysError> {
        let context = [0_u8; CONTEXT];
        let mut out = vec![0_u8; frame.len()];
        let length = u32::try_from(frame.len()).expect("a frame is small");
        let mut attr = attr();
        attr.test.prog_fd = raw(self.0.as_fd());
        attr.test.repeat = repeat;
        attr.test.data_in = address(frame.as_ptr());
        attr.test.data_size_in = length;
        attr.test.data_out = address(out.as_mut_ptr());
        attr.test.data_size_out = length;
        attr.test.ctx_in = address(context.as_ptr());
        attr.test.ctx_size_in = u32::try_from(CONTEXT).expect("the context is small");
        // SAFETY: frame, context and output are live for the call and of the stated sizes; only the output is written.
        unsafe { bpf(bpf_cmd::BPF_PROG_TEST_RUN, &mut attr) }
            .map_err(|source| Self::error("BPF_PROG_TEST_RUN", source))?;
        // SAFETY: after the call the duration is what the kernel stored there; any bit pattern is a number.
        let nanoseconds = unsafe { attr.test.duration };
        Ok(Duration::from_nanos(u64::from(nanoseconds)))
    }

    fn error(call: &'static str, source: io::Error) -> SysError {
        SysError {
            call,
            object: "the empty program".to_owned(),
            source,
        }
    }
}
