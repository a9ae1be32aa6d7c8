//! Objects behind descriptors: pinned paths, what the kernel knows of a map or link, and the atomic replacement of a link's program.

use std::ffi::CString;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use aya_obj::generated::{bpf_attach_type, bpf_cmd, bpf_link_info, bpf_map_info, bpf_map_type};
use sluice_abi::MapData;
use sluice_abi::maps::NO_PREALLOC;

use super::SysError;
use super::call::{address, attr, bpf, bpf_fd, raw};

/// What the kernel says of a map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MapInfo {
    /// `BPF_MAP_TYPE_*`.
    pub kind: u32,
    /// Kernel-wide id.
    pub id: u32,
    /// Bytes of a key.
    pub key: u32,
    /// Bytes of a value; for per-CPU maps of one CPU's.
    pub value: u32,
    /// Capacity.
    pub entries: u32,
    /// `BPF_F_*` flags.
    pub flags: u32,
}

/// What the kernel says of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkInfo {
    /// Kernel-wide id of the program behind it.
    pub program: u32,
    /// For a tcx link: the interface, or 0 when that is gone.
    pub ifindex: u32,
}

/// Opens a pinned map, program or link; `None` if nothing is pinned there.
///
/// # Errors
/// The path is no file name, or the object may not be opened.
pub fn open_pinned(path: &Path) -> Result<Option<OwnedFd>, SysError> {
    let context = |source| SysError {
        call: "BPF_OBJ_GET",
        object: path.display().to_string(),
        source,
    };
    let name = c_path(path).map_err(context)?;
    let mut attr = attr();
    attr.__bindgen_anon_4.pathname = address(name.as_ptr());
    // SAFETY: the path is a live, terminated string; the command returns a new descriptor.
    match unsafe { bpf_fd(bpf_cmd::BPF_OBJ_GET, &mut attr) } {
        Ok(fd) => Ok(Some(fd)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(context(error)),
    }
}

/// Pins a map, program or link, so that it outlives this process.
///
/// # Errors
/// The path is taken or not on a bpf file system.
pub fn pin(fd: BorrowedFd<'_>, path: &Path) -> Result<(), SysError> {
    let context = |source| SysError {
        call: "BPF_OBJ_PIN",
        object: path.display().to_string(),
        source,
    };
    let name = c_path(path).map_err(context)?;
    let mut attr = attr();
    attr.__bindgen_anon_4.pathname = address(name.as_ptr());
    attr.__bindgen_anon_4.bpf_fd = raw(fd);
    // SAFETY: the path is a live, terminated string.
    unsafe { bpf(bpf_cmd::BPF_OBJ_PIN, &mut attr) }.map_err(context)?;
    Ok(())
}

/// Reads what the kernel knows of a map.
///
/// # Errors
/// The descriptor is no map.
pub fn map_info(fd: BorrowedFd<'_>) -> Result<MapInfo, SysError> {
    // SAFETY: the block consists of integers, for which zero is valid.
    let mut info: bpf_map_info = unsafe { std::mem::zeroed() };
    // SAFETY: `bpf_map_info` is what the kernel fills in for a map, and at most its size.
    unsafe { object_info(fd, &mut info) }?;
    Ok(MapInfo {
        kind: info.type_,
        id: info.id,
        key: info.key_size,
        value: info.value_size,
        entries: info.max_entries,
        flags: info.map_flags,
    })
}

/// Reads what the kernel knows of a tcx link.
///
/// # Errors
/// The descriptor is no link.
pub fn link_info(fd: BorrowedFd<'_>) -> Result<LinkInfo, SysError> {
    // SAFETY: the block consists of integers, for which zero is valid.
    let mut info: bpf_link_info = unsafe { std::mem::zeroed() };
    // SAFETY: `bpf_link_info` is what the kernel fills in for a link, and at most its size.
    unsafe { object_info(fd, &mut info) }?;
    Ok(LinkInfo {
        program: info.prog_id,
        // SAFETY: a tcx link's part of the union begins with the interface index (struct bpf_link_info), as that of every link on an
        // interface does; for others the number means nothing, and any bit pattern is a number.
        ifindex: unsafe { info.__bindgen_anon_1.xdp.ifindex },
    })
}

/// Replaces the program behind a link in one step: no packet meets no program.
///
/// # Errors
/// The program is of another kind, or the link's interface is gone (`ENOLINK`).
pub fn update_link(link: BorrowedFd<'_>, program: BorrowedFd<'_>) -> Result<(), SysError> {
    let mut attr = attr();
    attr.link_update.link_fd = raw(link);
    attr.link_update.__bindgen_anon_1.new_prog_fd = raw(program);
    // SAFETY: the command follows no pointer.
    unsafe { bpf(bpf_cmd::BPF_LINK_UPDATE, &mut attr) }.map_err(|source| SysError {
        call: "BPF_LINK_UPDATE",
        object: "a link".to_owned(),
        source,
    })?;
    Ok(())
}

/// Attaches a classifier to an interface of the calling thread's namespace, last of those attached there.
///
/// # Errors
/// There is no such interface, or the kernel has no tcx.
pub fn create_tcx_link(
    program: BorrowedFd<'_>,
    ifindex: u32,
    egress: bool,
) -> Result<OwnedFd, SysError> {
    let hook = if egress {
        bpf_attach_type::BPF_TCX_EGRESS
    } else {
        bpf_attach_type::BPF_TCX_INGRESS
    };
    let mut attr = attr();
    attr.link_create.__bindgen_anon_1.prog_fd = raw(program);
    attr.link_create.__bindgen_anon_2.target_ifindex = ifindex;
    attr.link_create.attach_type = hook as u32;
    // SAFETY: the command follows no pointer, and returns a new descriptor.
    unsafe { bpf_fd(bpf_cmd::BPF_LINK_CREATE, &mut attr) }.map_err(|source| SysError {
        call: "BPF_LINK_CREATE",
        object: format!("interface {ifindex}"),
        source,
    })
}

/// Makes a hash of `K` to `V` that takes memory as entries come.
///
/// # Errors
/// The process may not make maps, or memory is short.
///
/// # Panics
/// If a key or value has 4 GiB or more.
pub fn create_hash<K: MapData, V: MapData>(name: &str, entries: u32) -> Result<OwnedFd, SysError> {
    let mut attr = attr();
    attr.__bindgen_anon_1.map_type = bpf_map_type::BPF_MAP_TYPE_HASH as u32;
    attr.__bindgen_anon_1.key_size = u32::try_from(size_of::<K>()).expect("a key is small");
    attr.__bindgen_anon_1.value_size = u32::try_from(size_of::<V>()).expect("a value is small");
    attr.__bindgen_anon_1.max_entries = entries;
    attr.__bindgen_anon_1.map_flags = NO_PREALLOC;
    // SAFETY: the command follows no pointer that is set, and returns a new descriptor.
    unsafe { bpf_fd(bpf_cmd::BPF_MAP_CREATE, &mut attr) }.map_err(|source| SysError {
        call: "BPF_MAP_CREATE",
        object: format!("map {name}"),
        source,
    })
}

/// # Safety
/// `T` must be the information block of the descriptor's kind of object.
unsafe fn object_info<T>(fd: BorrowedFd<'_>, info: &mut T) -> Result<(), SysError> {
    let mut attr = attr();
    attr.info.bpf_fd = raw(fd);
    attr.info.info_len = u32::try_from(size_of::<T>()).expect("an information block is small");
    attr.info.info = address(std::ptr::from_mut(info));
    // SAFETY: the block is a live, exclusive reference of the stated length.
    unsafe { bpf(bpf_cmd::BPF_OBJ_GET_INFO_BY_FD, &mut attr) }.map_err(|source| SysError {
        call: "BPF_OBJ_GET_INFO_BY_FD",
        object: "a descriptor".to_owned(),
        source,
    })?;
    Ok(())
}

fn c_path(path: &Path) -> io::Result<CString> {
    CString::new(path.as_os_str().as_bytes())
        .map_err(|e| io::Error::new(io::ErrorKind::InvalidInput, e))
}
