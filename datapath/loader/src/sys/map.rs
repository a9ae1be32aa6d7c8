//! Maps with typed keys and values, single elements and batches. A batch is one system call for thousands of elements.

use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use aya_obj::generated::{bpf_attr, bpf_cmd};
use sluice_abi::MapData;

use super::call::{address, attr, bpf, raw};
use super::{MapInfo, SysError, bytes, map_info};

/// Elements per batch call when reading; grows where one hash bucket holds more.
const READ_BATCH: usize = 4096;

/// A map of `K` to `V` behind a descriptor: hash, LRU hash, array or trie.
#[derive(Debug)]
pub struct Map<K, V> {
    raw: RawMap,
    types: PhantomData<fn(K) -> V>,
}

impl<K: MapData, V: MapData> Map<K, V> {
    /// Takes a descriptor whose key and value have the sizes of `K` and `V`.
    ///
    /// # Errors
    /// It is no map, or its sizes differ.
    pub fn new(name: &str, fd: OwnedFd) -> Result<Self, SysError> {
        let raw = RawMap::new(name, fd)?;
        raw.check(size_of::<K>(), size_of::<V>())?;
        Ok(Self {
            raw,
            types: PhantomData,
        })
    }

    /// Capacity.
    #[must_use]
    pub const fn capacity(&self) -> u32 {
        self.raw.info.entries
    }

    /// The value of a key (for a trie: of its longest match), or `None`.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn get(&self, key: &K) -> Result<Option<V>, SysError> {
        let mut value = vec![0; size_of::<V>()];
        Ok(self
            .raw
            .get(bytes::of(std::slice::from_ref(key)), &mut value)?
            .then(|| bytes::read(&value)))
    }

    /// Sets one element.
    ///
    /// # Errors
    /// The map is full, or the key out of bounds.
    pub fn put(&self, key: &K, value: &V) -> Result<(), SysError> {
        self.raw.put(
            bytes::of(std::slice::from_ref(key)),
            bytes::of(std::slice::from_ref(value)),
        )
    }

    /// Sets elements, in order. On failure some of them are set.
    ///
    /// # Errors
    /// The map is full, or a key out of bounds.
    pub fn put_all(&self, entries: &[(K, V)]) -> Result<(), SysError> {
        if let [(key, value)] = entries {
            return self.put(key, value);
        }
        let keys: Vec<K> = entries.iter().map(|entry| entry.0).collect();
        let values: Vec<V> = entries.iter().map(|entry| entry.1).collect();
        self.raw
            .put_all(entries.len(), bytes::of(&keys), bytes::of(&values))
    }

    /// Removes an element; `false` if it was not there.
    ///
    /// # Errors
    /// The kernel refuses: an array's elements can't be removed.
    pub fn remove(&self, key: &K) -> Result<bool, SysError> {
        self.raw.remove(bytes::of(std::slice::from_ref(key)))
    }

    /// Removes elements; those that are not there are passed over.
    ///
    /// # Errors
    /// The kernel refuses; some are removed then.
    pub fn remove_all(&self, keys: &[K]) -> Result<(), SysError> {
        self.raw.remove_all(keys.len(), bytes::of(keys))
    }

    /// Every element, in no order. Elements that change meanwhile may be missed or met twice.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn entries(&self) -> Result<Vec<(K, V)>, SysError> {
        let mut found = Vec::new();
        self.raw.each(size_of::<V>(), |key, value| {
            found.push((bytes::read(key), bytes::read(value)));
        })?;
        Ok(found)
    }
}

impl<K, V> AsFd for Map<K, V> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.raw.fd.as_fd()
    }
}

/// A map with one `V` per CPU behind each key.
#[derive(Debug)]
pub struct PerCpuMap<K, V> {
    raw: RawMap,
    cpus: usize,
    types: PhantomData<fn(K) -> V>,
}

impl<K: MapData, V: MapData> PerCpuMap<K, V> {
    /// Takes a descriptor whose key and value have the sizes of `K` and `V`.
    ///
    /// # Errors
    /// It is no map, its sizes differ, or the number of CPUs is not known.
    pub fn new(name: &str, fd: OwnedFd) -> Result<Self, SysError> {
        let raw = RawMap::new(name, fd)?;
        raw.check(size_of::<K>(), size_of::<V>())?;
        let cpus = aya::util::nr_cpus().map_err(|(path, source)| SysError {
            call: "counting CPUs",
            object: path.to_owned(),
            source,
        })?;
        Ok(Self {
            raw,
            cpus,
            types: PhantomData,
        })
    }

    /// Capacity.
    #[must_use]
    pub const fn capacity(&self) -> u32 {
        self.raw.info.entries
    }

    /// The values of a key, one per CPU, or `None`.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn get(&self, key: &K) -> Result<Option<Vec<V>>, SysError> {
        let mut value = vec![0; Self::stride() * self.cpus];
        let found = self
            .raw
            .get(bytes::of(std::slice::from_ref(key)), &mut value)?;
        Ok(found.then(|| Self::split(&value)))
    }

    /// Sets the values of a key; `values` beyond the number of CPUs are ignored and missing ones are those of `rest`.
    ///
    /// # Errors
    /// The map is full, or the key out of bounds.
    pub fn put(&self, key: &K, values: &[V], rest: V) -> Result<(), SysError> {
        let mut value = vec![0; Self::stride() * self.cpus];
        for (cpu, part) in value.chunks_exact_mut(Self::stride()).enumerate() {
            let one = values.get(cpu).copied().unwrap_or(rest);
            part[..size_of::<V>()].copy_from_slice(bytes::of(std::slice::from_ref(&one)));
        }
        self.raw.put(bytes::of(std::slice::from_ref(key)), &value)
    }

    /// Every element, in no order.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn entries(&self) -> Result<Vec<(K, Vec<V>)>, SysError> {
        let mut found = Vec::new();
        self.raw.each(Self::stride() * self.cpus, |key, value| {
            found.push((bytes::read(key), Self::split(value)));
        })?;
        Ok(found)
    }

    fn split(value: &[u8]) -> Vec<V> {
        value
            .chunks_exact(Self::stride())
            .map(bytes::read)
            .collect()
    }

    /// Each CPU's value begins at a multiple of eight bytes.
    const fn stride() -> usize {
        size_of::<V>().next_multiple_of(8)
    }
}

impl<K, V> AsFd for PerCpuMap<K, V> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.raw.fd.as_fd()
    }
}

/// A map as bytes. Callers give keys and values of the map's own sizes.
#[derive(Debug)]
struct RawMap {
    name: String,
    fd: OwnedFd,
    info: MapInfo,
}

impl RawMap {
    fn new(name: &str, fd: OwnedFd) -> Result<Self, SysError> {
        let info = map_info(fd.as_fd())?;
        Ok(Self {
            name: name.to_owned(),
            fd,
            info,
        })
    }

    fn check(&self, key: usize, value: usize) -> Result<(), SysError> {
        let have = (self.info.key as usize, self.info.value as usize);
        if have == (key, value) {
            return Ok(());
        }
        let text = format!(
            "its key and value have {} and {} bytes, not {key} and {value}",
            have.0, have.1
        );
        Err(self.error("opening", io::Error::new(io::ErrorKind::InvalidData, text)))
    }

    fn get(&self, key: &[u8], value: &mut [u8]) -> Result<bool, SysError> {
        let mut attr = self.element(key, value.as_ptr());
        // SAFETY: key and value are live for the call and have the map's sizes, which `check` has compared.
        match unsafe { bpf(bpf_cmd::BPF_MAP_LOOKUP_ELEM, &mut attr) } {
            Ok(_) => Ok(true),
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(false),
            Err(error) => Err(self.error("BPF_MAP_LOOKUP_ELEM", error)),
        }
    }

    fn put(&self, key: &[u8], value: &[u8]) -> Result<(), SysError> {
        let mut attr = self.element(key, value.as_ptr());
        // SAFETY: key and value are live for the call and have the map's sizes, which `check` has compared.
        unsafe { bpf(bpf_cmd::BPF_MAP_UPDATE_ELEM, &mut attr) }
            .map_err(|e| self.error("BPF_MAP_UPDATE_ELEM", e))?;
        Ok(())
    }

    fn remove(&self, key: &[u8]) -> Result<bool, SysError> {
        let mut attr = self.element(key, std::ptr::null());
        // SAFETY: the key is live for the call and has the map's size.
        match unsafe { bpf(bpf_cmd::BPF_MAP_DELETE_ELEM, &mut attr) } {
            Ok(_) => Ok(true),
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(false),
            Err(error) => Err(self.error("BPF_MAP_DELETE_ELEM", error)),
        }
    }

    fn element(&self, key: &[u8], value: *const u8) -> bpf_attr {
        let mut attr = attr();
        attr.__bindgen_anon_2.map_fd = raw(self.fd.as_fd());
        attr.__bindgen_anon_2.key = address(key.as_ptr());
        attr.__bindgen_anon_2.__bindgen_anon_1.value = address(value);
        attr
    }

    fn put_all(&self, count: usize, keys: &[u8], values: &[u8]) -> Result<(), SysError> {
        if count == 0 {
            return Ok(());
        }
        let mut attr = self.batch(count)?;
        attr.batch.keys = address(keys.as_ptr());
        attr.batch.values = address(values.as_ptr());
        // SAFETY: both buffers hold `count` elements of the map's sizes and are live for the call, which only reads them.
        unsafe { bpf(bpf_cmd::BPF_MAP_UPDATE_BATCH, &mut attr) }
            .map_err(|e| self.error("BPF_MAP_UPDATE_BATCH", e))?;
        Ok(())
    }

    fn remove_all(&self, count: usize, keys: &[u8]) -> Result<(), SysError> {
        let size = self.info.key as usize;
        let mut done = 0;
        while done < count {
            let mut attr = self.batch(count - done)?;
            attr.batch.keys = address(keys[done * size..].as_ptr());
            // SAFETY: the buffer holds the remaining keys of the map's size and is live for the call, which only reads it.
            let answer = unsafe { bpf(bpf_cmd::BPF_MAP_DELETE_BATCH, &mut attr) };
            // SAFETY: after the call the count is what the kernel stored there; any bit pattern is a number.
            let removed = unsafe { attr.batch.count } as usize;
            match answer {
                Ok(_) => return Ok(()),
                // The key after those removed is not there, which is what was wanted.
                Err(error) if error.raw_os_error() == Some(libc::ENOENT) => done += removed + 1,
                Err(error) => return Err(self.error("BPF_MAP_DELETE_BATCH", error)),
            }
        }
        Ok(())
    }

    /// Calls `visit` with every key and its value of `value` bytes (all CPUs' for a per-CPU map).
    fn each(&self, value: usize, mut visit: impl FnMut(&[u8], &[u8])) -> Result<(), SysError> {
        let key = self.info.key as usize;
        let mut room = READ_BATCH.min((self.info.entries as usize).max(1));
        // The position between calls: a bucket number for hashes, a key for others.
        let mut position: Option<Vec<u8>> = None;
        loop {
            let mut next = vec![0; key.max(8)];
            let (mut keys, mut values) = (vec![0; key * room], vec![0; value * room]);
            let mut attr = self.batch(room)?;
            attr.batch.in_batch = position.as_ref().map_or(0, |p| address(p.as_ptr()));
            attr.batch.out_batch = address(next.as_mut_ptr());
            attr.batch.keys = address(keys.as_mut_ptr());
            attr.batch.values = address(values.as_mut_ptr());
            // SAFETY: the buffers are live and exclusive, have room for `room` elements, and the position has room for a key.
            let answer = unsafe { bpf(bpf_cmd::BPF_MAP_LOOKUP_BATCH, &mut attr) };
            // SAFETY: after the call the count is what the kernel stored there; any bit pattern is a number.
            let found = unsafe { attr.batch.count } as usize;
            let end = match answer {
                Ok(_) => false,
                Err(error) => match error.raw_os_error() {
                    Some(libc::ENOENT) => true,
                    // One bucket holds more than there is room for.
                    Some(libc::ENOSPC) if room < 1 << 24 => {
                        room *= 2;
                        continue;
                    }
                    _ => return Err(self.error("BPF_MAP_LOOKUP_BATCH", error)),
                },
            };
            for at in 0..found.min(room) {
                visit(&keys[at * key..][..key], &values[at * value..][..value]);
            }
            if end {
                return Ok(());
            }
            position = Some(next);
        }
    }

    fn batch(&self, count: usize) -> Result<bpf_attr, SysError> {
        let mut attr = attr();
        attr.batch.map_fd = raw(self.fd.as_fd());
        attr.batch.count =
            u32::try_from(count).map_err(|e| self.error("a batch", io::Error::other(e)))?;
        Ok(attr)
    }

    fn error(&self, call: &'static str, source: io::Error) -> SysError {
        SysError {
            call,
            object: format!("map {}", self.name),
            source,
        }
    }
}
