//! The eBPF programs as bytes, embedded in this binary at build time. Reading them from a file at run time may not
//! enter: a node must not load programs other than those its agent was built and tested with.

use thiserror::Error;

#[cfg(sluice_ebpf_embedded)]
const OBJECT: Option<&[u8]> = Some(aya::include_bytes_aligned!(concat!(
    env!("OUT_DIR"),
    "/sluice-ebpf.o"
)));
#[cfg(not(sluice_ebpf_embedded))]
const OBJECT: Option<&[u8]> = None;

/// This binary has no eBPF programs in it.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[error("this binary was built without the eBPF programs: run `cargo xtask ebpf` and build again")]
pub struct Missing;

/// The ELF object with every program and map, aligned as its parser needs it.
///
/// # Errors
///
/// [`Missing`] if the object had not been built when this crate was.
pub fn embedded() -> Result<&'static [u8], Missing> {
    OBJECT.ok_or(Missing)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Both builds are legitimate, so the test asks of each what it owes: a loadable object, or advice.
    #[test]
    fn an_embedded_object_is_an_aligned_elf_file_and_a_missing_one_names_the_command() {
        match embedded() {
            Ok(object) => {
                assert_eq!(&object[..4], b"\x7fELF");
                assert_eq!(object.as_ptr().align_offset(8), 0);
            }
            Err(missing) => assert!(missing.to_string().contains("cargo xtask ebpf")),
        }
    }
}
