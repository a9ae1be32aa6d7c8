//! An array of 64-bit words mapped into memory: one store, no system call.

use std::io;
use std::num::NonZeroUsize;
use std::os::fd::AsFd;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};

use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};

use super::{Map, SysError};

/// The words of a `BPF_F_MMAPABLE` array.
#[derive(Debug)]
pub struct MappedWords {
    words: NonNull<AtomicU64>,
    count: u32,
    bytes: NonZeroUsize,
}

// SAFETY: the memory is plain words, reached by atomic operations only, and belongs to no thread.
unsafe impl Send for MappedWords {}
// SAFETY: as for `Send`.
unsafe impl Sync for MappedWords {}

impl MappedWords {
    /// Maps an array into memory. The mapping stays when the descriptor is closed.
    ///
    /// # Errors
    /// The array was not made for it.
    pub fn new(name: &str, array: &Map<u32, u64>) -> Result<Self, SysError> {
        let context = |source: io::Error| SysError {
            call: "mmap",
            object: format!("map {name}"),
            source,
        };
        let count = array.capacity();
        let bytes = NonZeroUsize::new(count as usize * size_of::<u64>())
            .ok_or_else(|| context(io::Error::from(io::ErrorKind::InvalidInput)))?;
        // SAFETY: the kernel picks an address that nothing of ours lives at, and the mapping is shared with nothing but the kernel.
        let start = unsafe {
            mmap(
                None,
                bytes,
                ProtFlags::PROT_READ | ProtFlags::PROT_WRITE,
                MapFlags::MAP_SHARED,
                array.as_fd(),
                0,
            )
        }
        .map_err(|e| context(e.into()))?;
        Ok(Self {
            words: start.cast(),
            count,
            bytes,
        })
    }

    /// How many words there are.
    #[must_use]
    pub const fn len(&self) -> u32 {
        self.count
    }

    /// Whether there is no word; there always is.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Reads a word; 0 beyond the end.
    #[must_use]
    pub fn load(&self, index: u32) -> u64 {
        self.word(index)
            .map_or(0, |word| word.load(Ordering::Acquire))
    }

    /// Stores a word in one step, after everything this thread wrote before; `false` beyond the end.
    #[must_use]
    pub fn store(&self, index: u32, value: u64) -> bool {
        self.word(index).is_some_and(|word| {
            word.store(value, Ordering::Release);
            true
        })
    }

    fn word(&self, index: u32) -> Option<&AtomicU64> {
        (index < self.count).then(|| {
            // SAFETY: the index is inside the mapping, which lives as long as `self`; a page is aligned for any word.
            unsafe { self.words.add(index as usize).as_ref() }
        })
    }
}

impl Drop for MappedWords {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours, and no reference into it outlives `self`.
        let _ = unsafe { munmap(self.words.cast(), self.bytes.get()) };
    }
}
