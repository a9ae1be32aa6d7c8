//! What lies in the bpf file system: checked before it is used, made, and removed.

use std::fs::{self, File, TryLockError};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use aya::maps::{Map, MapData};
use sluice_abi::Cookie;
use sluice_abi::event::Counter;
use sluice_abi::maps::{Kind, Spec};

use super::instance::Layout;
use super::{CARRIED, Instance, LoadError, Sizes};
use crate::probe::mount_bpffs;
use crate::sys;

/// Locks the instance for this process and makes its directories, mounting the bpf file system where there is none.
pub(super) fn prepare(instance: &Instance, layout: &Layout) -> Result<File, LoadError> {
    let lock = lock(instance)?;
    mount_bpffs()?;
    for directory in [instance.layout(layout), instance.links()] {
        fs::create_dir_all(&directory).map_err(|e| LoadError::path(&directory, e))?;
    }
    Ok(lock)
}

/// Takes the instance's lock, which the kernel releases when its holder ends, however it ends.
pub(super) fn lock(instance: &Instance) -> Result<File, LoadError> {
    let path = instance.lock();
    let context = |source| LoadError::path(&path, source);
    fs::create_dir_all(path.parent().unwrap_or(Path::new("/"))).map_err(context)?;
    let file = File::options()
        .create(true)
        .append(true)
        .open(&path)
        .map_err(context)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(LoadError::InUse(instance.name().to_owned())),
        Err(TryLockError::Error(error)) => Err(context(error)),
    }
}

/// Refuses a pinned map that is not as wanted: the programs would read other bytes than were meant.
pub(super) fn check(path: PathBuf, spec: &Spec, entries: u32) -> Result<(), LoadError> {
    let Some(fd) = sys::open_pinned(&path)? else {
        return Ok(());
    };
    let info = sys::map_info(fd.as_fd())?;
    let bytes = |size: usize| u32::try_from(size).unwrap_or(u32::MAX);
    let fields = [
        ("kind", info.kind, kind(spec.kind)),
        ("key size", info.key, bytes(spec.key)),
        ("value size", info.value, bytes(spec.value)),
        ("capacity", info.entries, entries),
        ("flags", info.flags, spec.flags),
    ];
    match fields
        .into_iter()
        .find(|(_, found, wanted)| found != wanted)
    {
        Some((field, found, wanted)) => Err(LoadError::Layout {
            path,
            field,
            found,
            wanted,
        }),
        None => Ok(()),
    }
}

/// Opens or makes the map of what ended connections had counted.
pub(super) fn carried(path: Option<&Path>, sizes: &Sizes) -> Result<OwnedFd, LoadError> {
    if let Some(path) = path
        && let Some(fd) = sys::open_pinned(path)?
    {
        return Ok(fd);
    }
    let fd = sys::create_hash::<Cookie, Counter>(CARRIED, sizes.rules)?;
    if let Some(path) = path {
        sys::pin(fd.as_fd(), path)?;
    }
    Ok(fd)
}

/// Removes everything of an instance, links first: a program without its maps' names still works, maps without programs do nothing.
pub(super) fn remove(instance: &Instance) -> Result<(), LoadError> {
    for directory in [instance.links(), instance.directory()] {
        match fs::remove_dir_all(&directory) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(LoadError::path(directory, error));
            }
            _ => {}
        }
    }
    let lock = instance.lock();
    match fs::remove_file(&lock) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(LoadError::path(lock, error)),
        _ => Ok(()),
    }
}

/// Removes the maps of other layouts.
pub(super) fn remove_old_layouts(instance: &Instance, current: &Layout) -> Result<(), LoadError> {
    let directory = instance.directory();
    for entry in fs::read_dir(&directory).map_err(|e| LoadError::path(&directory, e))? {
        let entry = entry.map_err(|e| LoadError::path(&directory, e))?;
        let name = entry.file_name();
        if name.to_str().is_some_and(|name| current.is_other(name)) {
            fs::remove_dir_all(entry.path()).map_err(|e| LoadError::path(entry.path(), e))?;
        }
    }
    Ok(())
}

/// A map as the loader holds it, whatever its kind.
pub(super) fn data(map: &Map) -> Option<&MapData> {
    match map {
        Map::Array(data)
        | Map::HashMap(data)
        | Map::LpmTrie(data)
        | Map::LruHashMap(data)
        | Map::PerCpuArray(data)
        | Map::PerCpuHashMap(data)
        | Map::RingBuf(data) => Some(data),
        _ => None,
    }
}

/// The kernel's number (`enum bpf_map_type`).
const fn kind(kind: Kind) -> u32 {
    use aya_obj::generated::bpf_map_type as number;
    let number = match kind {
        Kind::Hash => number::BPF_MAP_TYPE_HASH,
        Kind::LruHash => number::BPF_MAP_TYPE_LRU_HASH,
        Kind::PerCpuHash => number::BPF_MAP_TYPE_PERCPU_HASH,
        Kind::Array => number::BPF_MAP_TYPE_ARRAY,
        Kind::PerCpuArray => number::BPF_MAP_TYPE_PERCPU_ARRAY,
        Kind::LpmTrie => number::BPF_MAP_TYPE_LPM_TRIE,
        Kind::RingBuffer => number::BPF_MAP_TYPE_RINGBUF,
    };
    number as u32
}
