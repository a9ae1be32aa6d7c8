//! Map keys and values as bytes and back: the two places where a layout becomes memory.

use sluice_abi::MapData;

/// A value's bytes.
pub(super) fn of<T: MapData>(values: &[T]) -> &[u8] {
    // SAFETY: `MapData` promises that the type has no padding, so every byte is initialised; the length is that of the slice.
    unsafe { std::slice::from_raw_parts(values.as_ptr().cast(), size_of_val(values)) }
}

/// The value with these bytes.
///
/// # Panics
/// If there are fewer bytes than the type has.
pub(crate) fn read<T: MapData>(bytes: &[u8]) -> T {
    assert!(bytes.len() >= size_of::<T>());
    // SAFETY: the bytes are there, and `MapData` promises that any bit pattern is a valid value. The read need not be aligned.
    unsafe { bytes.as_ptr().cast::<T>().read_unaligned() }
}
