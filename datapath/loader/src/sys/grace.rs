//! Waiting until no program that runs now still runs.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use aya_obj::generated::{bpf_cmd, bpf_map_type};

use super::SysError;
use super::call::{address, attr, bpf, bpf_fd, raw};

/// `MEMBARRIER_CMD_GLOBAL` (include/uapi/linux/membarrier.h).
const GLOBAL: libc::c_int = 1;

/// The wait for an RCU grace period.
///
/// Packet programs run inside an RCU read-side section. `membarrier(MEMBARRIER_CMD_GLOBAL)` is, in the kernel, `synchronize_rcu()`
/// (kernel/sched/membarrier.c): it returns when every section that had begun before the call is over, so nobody still holds a revision
/// or an element read before. On one CPU it returns at once, which suffices: programs run with bottom halves off there, so none can
/// be half-way while this thread runs. A kernel with `nohz_full` refuses the command; then updating a map of maps is the way, for which
/// the kernel waits itself (`maybe_wait_bpf_programs` in kernel/bpf/syscall.c).
#[derive(Debug)]
pub struct GracePeriod {
    fallback: Option<Fallback>,
}

impl GracePeriod {
    /// Finds out which way this kernel offers.
    ///
    /// # Errors
    /// It offers none.
    pub fn new() -> Result<Self, SysError> {
        Ok(Self {
            fallback: if membarrier().is_ok() {
                None
            } else {
                Some(Fallback::new()?)
            },
        })
    }

    /// Waits: some milliseconds.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn wait(&self) -> Result<(), SysError> {
        match &self.fallback {
            None => membarrier().map_err(|source| SysError {
                call: "membarrier",
                object: "all programs".to_owned(),
                source,
            }),
            Some(fallback) => fallback.wait(),
        }
    }
}

fn membarrier() -> io::Result<()> {
    // SAFETY: the call follows no pointer.
    let answer = unsafe { libc::syscall(libc::SYS_membarrier, GLOBAL, 0, 0) };
    if answer == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// A map of maps whose one element is overwritten.
#[derive(Debug)]
struct Fallback {
    outer: OwnedFd,
    inner: OwnedFd,
}

impl Fallback {
    fn new() -> Result<Self, SysError> {
        let inner = create(bpf_map_type::BPF_MAP_TYPE_ARRAY, None)?;
        let outer = create(
            bpf_map_type::BPF_MAP_TYPE_ARRAY_OF_MAPS,
            Some(inner.as_fd()),
        )?;
        Ok(Self { outer, inner })
    }

    fn wait(&self) -> Result<(), SysError> {
        let (key, value) = (0_u32, raw(self.inner.as_fd()));
        let mut attr = attr();
        attr.__bindgen_anon_2.map_fd = raw(self.outer.as_fd());
        attr.__bindgen_anon_2.key = address(&raw const key);
        attr.__bindgen_anon_2.__bindgen_anon_1.value = address(&raw const value);
        // SAFETY: key and value are live for the call; both are four bytes, as the map was made for.
        unsafe { bpf(bpf_cmd::BPF_MAP_UPDATE_ELEM, &mut attr) }.map_err(|source| SysError {
            call: "BPF_MAP_UPDATE_ELEM",
            object: "the map of maps that waits for a grace period".to_owned(),
            source,
        })?;
        Ok(())
    }
}

fn create(kind: bpf_map_type, inner: Option<BorrowedFd<'_>>) -> Result<OwnedFd, SysError> {
    let mut attr = attr();
    attr.__bindgen_anon_1.map_type = kind as u32;
    attr.__bindgen_anon_1.key_size = 4;
    attr.__bindgen_anon_1.value_size = 4;
    attr.__bindgen_anon_1.max_entries = 1;
    if let Some(inner) = inner {
        attr.__bindgen_anon_1.inner_map_fd = raw(inner);
    }
    // SAFETY: the command follows no pointer that is set, and returns a new descriptor.
    unsafe { bpf_fd(bpf_cmd::BPF_MAP_CREATE, &mut attr) }.map_err(|source| SysError {
        call: "BPF_MAP_CREATE",
        object: "the map of maps that waits for a grace period".to_owned(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fallback_waits_too() {
        // Without the right to make maps there is nothing to try.
        if let Ok(fallback) = Fallback::new() {
            fallback.wait().unwrap();
            fallback.wait().unwrap();
        }
    }
}
