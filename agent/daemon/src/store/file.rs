//! A database in a file, whose commits do not wait for the disk. What is in it may not enter.

use std::{
    fs::{self, File},
    io,
    ops::Bound,
    path::{Path, PathBuf},
};

use redb::{BackendError, Database, StorageBackend, backends::FileBackend};
use thiserror::Error;
use tracing::warn;

/// A page is read again from the kernel's cache, which holds it anyway.
const CACHE_BYTES: usize = 1 << 20;

/// The state can't be read or written.
#[derive(Debug, Error)]
pub enum StoreError {
    /// A file.
    #[error("{path}: {source}")]
    File {
        /// Which.
        path: PathBuf,
        /// What the system answered.
        #[source]
        source: io::Error,
    },
    /// The database in it.
    #[error("{path}: {source}")]
    Database {
        /// Which.
        path: PathBuf,
        /// What is wrong.
        #[source]
        source: Box<redb::Error>,
    },
    /// An entry that can't be understood.
    #[error("{path}: {entry}: {reason}")]
    Entry {
        /// Which file.
        path: PathBuf,
        /// Which entry.
        entry: String,
        /// What is wrong.
        reason: String,
    },
}

/// See the module.
#[derive(Debug)]
pub(super) struct StateFile {
    pub(super) database: Database,
    path: PathBuf,
    file: File,
}

impl StateFile {
    /// Opens the file, making it where there is none. One that a power failure has broken is set aside: what it described is gone too.
    pub(super) fn open(path: &Path) -> Result<Self, StoreError> {
        match Self::try_open(path) {
            Err(StoreError::Database { source, .. }) if !is_taken(&source) => {
                let aside = path.with_extension("broken");
                warn!(path = %path.display(), error = %source, aside = %aside.display(),
                    "the state can't be read and is set aside: starting without");
                fs::rename(path, &aside).map_err(in_file(path))?;
                Self::try_open(path)
            }
            other => other,
        }
    }

    fn try_open(path: &Path) -> Result<Self, StoreError> {
        if let Some(directory) = path.parent() {
            fs::create_dir_all(directory).map_err(in_file(directory))?;
        }
        let open = || {
            File::options()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .open(path)
        };
        let file = open().map_err(in_file(path))?;
        let copy = file.try_clone().map_err(in_file(path))?;
        let database = FileBackend::new(file)
            .and_then(|backend| {
                Database::builder()
                    .set_cache_size(CACHE_BYTES)
                    .create_with_backend(InPageCache(backend))
            })
            .map_err(|error| database_error(path, error))?;
        Ok(Self {
            database,
            path: path.to_owned(),
            file: copy,
        })
    }

    /// Brings all commits to the disk.
    pub(super) fn flush(&self) -> Result<(), StoreError> {
        self.file.sync_data().map_err(in_file(&self.path))
    }

    /// The error of whatever the database says.
    pub(super) fn error<E: Into<redb::Error>>(&self) -> impl Fn(E) -> StoreError + use<E> {
        let path = self.path.clone();
        move |error| database_error(&path, error)
    }

    pub(super) fn bad_entry(&self, entry: &str, reason: &impl ToString) -> StoreError {
        StoreError::Entry {
            path: self.path.clone(),
            entry: entry.to_owned(),
            reason: reason.to_string(),
        }
    }
}

fn in_file(path: &Path) -> impl Fn(io::Error) -> StoreError + use<> {
    let path = path.to_owned();
    move |source| StoreError::File {
        path: path.clone(),
        source,
    }
}

fn database_error(path: &Path, error: impl Into<redb::Error>) -> StoreError {
    StoreError::Database {
        path: path.to_owned(),
        source: Box::new(error.into()),
    }
}

const fn is_taken(error: &redb::Error) -> bool {
    matches!(error, redb::Error::DatabaseAlreadyOpen)
}

/// A file whose commits are done when the kernel has them: see the module above.
#[derive(Debug)]
struct InPageCache(FileBackend);

impl StorageBackend for InPageCache {
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.0.read(offset, out)
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        self.0.set_len(length)
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.write(offset, data)
    }

    fn close(&self) -> io::Result<()> {
        self.0.close()
    }

    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.0.try_lock_range(start, end)
    }

    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.0.unlock_range(start, end)
    }
}
