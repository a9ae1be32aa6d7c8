//! The system call itself.

use std::ffi::c_long;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use aya_obj::generated::{bpf_attr, bpf_cmd};

/// An argument block of all zeroes: every command takes unset fields to be zero.
pub(super) fn attr() -> bpf_attr {
    // SAFETY: the union consists of integers and arrays of integers, for which zero is valid.
    unsafe { std::mem::zeroed() }
}

/// Calls bpf(2).
///
/// # Safety
/// Every pointer in `attr` must be valid for what `command` reads or writes through it.
pub(super) unsafe fn bpf(command: bpf_cmd, attr: &mut bpf_attr) -> io::Result<c_long> {
    // SAFETY: the caller vouches for the pointers inside; the block itself is a live, exclusive reference of the stated size.
    let answer = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command as libc::c_uint,
            std::ptr::from_mut(attr),
            size_of::<bpf_attr>(),
        )
    };
    if answer < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(answer)
    }
}

/// Calls bpf(2) with a command that gives a file descriptor.
///
/// # Safety
/// As for [`bpf`], and `command` must return a new descriptor.
pub(super) unsafe fn bpf_fd(command: bpf_cmd, attr: &mut bpf_attr) -> io::Result<OwnedFd> {
    // SAFETY: the caller vouches for the pointers.
    let fd = unsafe { bpf(command, attr) }?;
    let fd = i32::try_from(fd).map_err(io::Error::other)?;
    // SAFETY: the kernel has just given this descriptor to us alone.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// A descriptor as bpf(2) wants it.
pub(super) fn raw(fd: BorrowedFd<'_>) -> u32 {
    u32::try_from(fd.as_raw_fd()).expect("an open descriptor is not negative")
}

/// A pointer as bpf(2) wants it.
pub(super) fn address<T>(pointer: *const T) -> u64 {
    u64::try_from(pointer.addr()).expect("a pointer has at most 64 bits")
}
