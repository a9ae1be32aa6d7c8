//! What outlives the process, in files of the node's state directory: endpoints with their addresses, and what the operator said last.
//! What it means may not enter.
//!
//! A commit is in the page cache when it returns: it outlives this process however that ends. It reaches the disk every few seconds
//! (`Database::flush`), since what a power failure takes away, the pods' interfaces and the kernel's maps, is what it describes.

mod endpoints;
mod file;
mod updates;

pub use endpoints::Endpoints;
pub use file::StoreError;
pub use updates::Updates;
