//! Words in map values that several CPUs read and change while others do.
//!
//! The standard atomic types lack most operations, and all narrow words, for the kernel's machine; kernels since 5.12 have them.

use core::cell::UnsafeCell;

/// A number that is shared between CPUs. Loads and stores are whole (no torn values) and unordered.
#[repr(transparent)]
#[derive(Debug, Default)]
pub struct Shared<T>(UnsafeCell<T>);

// SAFETY: every access is volatile or atomic and of a machine word at most, so that readers see whole values.
unsafe impl<T: Copy + Send> Sync for Shared<T> {}

impl<T: Copy> Shared<T> {
    /// The value now.
    #[must_use]
    #[inline(always)]
    pub fn load(&self) -> T {
        // SAFETY: the pointer is to a live, aligned value.
        unsafe { self.0.get().read_volatile() }
    }

    /// Sets the value.
    #[inline(always)]
    pub fn store(&self, value: T) {
        // SAFETY: the pointer is to a live, aligned value that nobody holds a plain reference to.
        unsafe { self.0.get().write_volatile(value) }
    }
}

impl<T> From<T> for Shared<T> {
    fn from(value: T) -> Self {
        Self(UnsafeCell::new(value))
    }
}

/// Zeroes a value word by word. The kernel's machine has no `memset` but a loop over bytes, into which the compiler turns every plain
/// way to write many zeros.
#[inline(always)]
pub(crate) fn clear<T: Words>(value: &mut T) {
    let words = core::ptr::from_mut(value).cast::<u64>();
    let mut index = 0;
    while index < size_of::<T>() / 8 {
        // SAFETY: `Words` says that the value is made of aligned words and may be all zeros.
        unsafe { words.add(index).write_volatile(0) };
        index += 1;
    }
}

/// Copies a value word by word, for the same reason. A value that changes meanwhile may come out torn between words.
#[inline(always)]
pub fn copy<T: Words>(from: &T, to: &mut T) {
    let (from, to) = (
        core::ptr::from_ref(from).cast::<u64>(),
        core::ptr::from_mut(to).cast::<u64>(),
    );
    let mut index = 0;
    while index < size_of::<T>() / 8 {
        // SAFETY: `Words` says that both are made of aligned words of which any bits are valid.
        unsafe {
            let word = from.add(index).read_volatile();
            to.add(index).write_volatile(word);
        };
        index += 1;
    }
}

/// A type made of aligned 64-bit words.
///
/// # Safety
/// Its alignment and size must be multiples of 8, it must have no padding, and every bit pattern must be valid.
pub unsafe trait Words {}

#[cfg(target_arch = "bpf")]
impl Shared<u64> {
    /// Adds to the value.
    #[inline(always)]
    pub fn add(&self, number: u64) {
        // SAFETY: an aligned word that is only changed atomically.
        unsafe {
            core::arch::asm!(
                "lock *(u64 *)({word} + 0) += {number}",
                word = in(reg) self.0.get(),
                number = in(reg) number,
            );
        }
    }

    /// Adds to the value and returns what it was.
    #[inline(always)]
    pub fn fetch_add(&self, number: u64) -> u64 {
        let mut old = number;
        // SAFETY: an aligned word that is only changed atomically.
        unsafe {
            core::arch::asm!(
                "{old} = atomic_fetch_add((u64 *)({word} + 0), {old})",
                word = in(reg) self.0.get(),
                old = inout(reg) old,
            );
        }
        old
    }

    /// Sets the value to zero and returns what it was.
    #[inline(always)]
    pub fn take(&self) -> u64 {
        let mut old = 0_u64;
        // SAFETY: an aligned word that is only changed atomically.
        unsafe {
            core::arch::asm!(
                "{old} = xchg_64({word} + 0, {old})",
                word = in(reg) self.0.get(),
                old = inout(reg) old,
            );
        }
        old
    }

    /// Sets the value to `new` if it is `old`; whether it was.
    #[inline(always)]
    pub fn replace(&self, old: u64, new: u64) -> bool {
        let mut found = old;
        // SAFETY: an aligned word that is only changed atomically.
        unsafe {
            core::arch::asm!(
                "r0 = cmpxchg_64({word} + 0, r0, {new})",
                word = in(reg) self.0.get(),
                new = in(reg) new,
                inout("r0") found,
            );
        }
        found == old
    }
}

#[cfg(not(target_arch = "bpf"))]
impl Shared<u64> {
    #[inline(always)]
    fn word(&self) -> &core::sync::atomic::AtomicU64 {
        // SAFETY: an aligned word that is only changed atomically.
        unsafe { core::sync::atomic::AtomicU64::from_ptr(self.0.get()) }
    }

    /// Adds to the value.
    #[inline(always)]
    pub fn add(&self, number: u64) {
        self.fetch_add(number);
    }

    /// Adds to the value and returns what it was.
    #[inline(always)]
    pub fn fetch_add(&self, number: u64) -> u64 {
        self.word()
            .fetch_add(number, core::sync::atomic::Ordering::Relaxed)
    }

    /// Sets the value to zero and returns what it was.
    #[inline(always)]
    pub fn take(&self) -> u64 {
        self.word().swap(0, core::sync::atomic::Ordering::Relaxed)
    }

    /// Sets the value to `new` if it is `old`; whether it was.
    #[inline(always)]
    pub fn replace(&self, old: u64, new: u64) -> bool {
        use core::sync::atomic::Ordering::Relaxed;
        self.word()
            .compare_exchange(old, new, Relaxed, Relaxed)
            .is_ok()
    }
}
