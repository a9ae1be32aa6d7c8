//! Named network namespaces, kept where `ip netns` keeps them, and running code inside one.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::thread;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};

use super::NetError;

/// Where `ip netns` keeps its names (iproute2, `ip/ipnetns.c`).
const DIRECTORY: &str = "/run/netns";
const OWN: &str = "/proc/thread-self/ns/net";

/// An open network namespace. It lives at least as long as this value, or as its name, or as a process in it.
#[derive(Debug)]
pub struct NetNs {
    name: String,
    file: File,
}

impl NetNs {
    /// Makes a namespace and gives it a name; its loopback interface is down.
    ///
    /// # Errors
    /// The name is taken or no file name, or the process may not make namespaces (`CAP_SYS_ADMIN`).
    pub fn create(name: &str) -> Result<Self, NetError> {
        let context =
            |source: io::Error| NetError::new(format!("creating network namespace {name}"), source);
        let path = path_of(name)?;
        prepare_directory().map_err(context)?;
        File::create_new(&path).map_err(context)?;
        if let Err(error) = unshare_onto(&path) {
            // The name without a namespace behind it would block the next attempt.
            let _ = fs::remove_file(&path);
            return Err(context(error));
        }
        Self::open(name)
    }

    /// Opens the namespace of this name.
    ///
    /// # Errors
    /// There is none, or it may not be opened.
    pub fn open(name: &str) -> Result<Self, NetError> {
        let file = File::open(path_of(name)?)
            .map_err(|e| NetError::new(format!("opening network namespace {name}"), e))?;
        Ok(Self {
            name: name.to_owned(),
            file,
        })
    }

    /// The namespace behind an open descriptor, called `name` in messages.
    #[must_use]
    pub fn adopt(name: impl Into<String>, descriptor: OwnedFd) -> Self {
        Self {
            name: name.into(),
            file: File::from(descriptor),
        }
    }

    /// The namespace's number: the same as long as it lives, another's afterwards.
    ///
    /// # Errors
    /// The kernel does not tell.
    pub fn inode(&self) -> Result<u64, NetError> {
        self.file
            .metadata()
            .map(|meta| meta.ino())
            .map_err(|e| NetError::new(format!("reading namespace {}", self.name), e))
    }

    /// The namespace the calling thread is in; its name is empty.
    ///
    /// # Errors
    /// `/proc` is not there.
    pub fn current() -> Result<Self, NetError> {
        let file = File::open(OWN)
            .map_err(|e| NetError::new(format!("opening the own network namespace at {OWN}"), e))?;
        Ok(Self {
            name: String::new(),
            file,
        })
    }

    /// Removes a name. The namespace and its interfaces go when nothing else holds them. A name that is not there is no error,
    /// so that cleaning up can be repeated.
    ///
    /// # Errors
    /// The name is no file name, or may not be removed.
    pub fn delete(name: &str) -> Result<(), NetError> {
        let path = path_of(name)?;
        let context =
            |source: io::Error| NetError::new(format!("removing network namespace {name}"), source);
        match umount2(&path, MntFlags::MNT_DETACH) {
            // EINVAL: the name was made but the maker was killed before the namespace was mounted on it.
            Ok(()) | Err(nix::Error::ENOENT | nix::Error::EINVAL) => {}
            Err(error) => return Err(context(error.into())),
        }
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(context(error)),
            _ => Ok(()),
        }
    }

    /// The names that begin with `prefix`, sorted: what a killed process may have left behind.
    ///
    /// # Errors
    /// The directory of names can't be read.
    pub fn list(prefix: &str) -> Result<Vec<String>, NetError> {
        let context = |source| NetError::new(format!("listing {DIRECTORY}"), source);
        let entries = match fs::read_dir(DIRECTORY) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            other => other.map_err(context)?,
        };
        let mut names = Vec::new();
        for entry in entries {
            if let Ok(name) = entry.map_err(context)?.file_name().into_string()
                && name.starts_with(prefix)
            {
                names.push(name);
            }
        }
        names.sort();
        Ok(names)
    }

    /// The name; empty for [`NetNs::current`].
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether both stand for one namespace.
    ///
    /// # Errors
    /// The kernel does not tell.
    pub fn is_same(&self, other: &Self) -> Result<bool, NetError> {
        let of = |ns: &Self| {
            ns.file
                .metadata()
                .map(|meta| (meta.dev(), meta.ino()))
                .map_err(|e| NetError::new(format!("reading namespace {}", ns.name), e))
        };
        Ok(of(self)? == of(other)?)
    }
}

impl AsFd for NetNs {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// Runs `work` on a thread of its own inside `ns`. Sockets it opens belong to that namespace wherever they are used later.
///
/// # Errors
/// The namespace may not be entered (`CAP_SYS_ADMIN`), or no thread can be started.
///
/// # Panics
/// If `work` does.
pub fn in_namespace<T: Send>(ns: &NetNs, work: impl FnOnce() -> T + Send) -> Result<T, NetError> {
    let context = |source: io::Error| {
        NetError::new(format!("entering network namespace {}", ns.name), source)
    };
    thread::scope(|scope| {
        thread::Builder::new()
            .name(format!("ns-{}", ns.name))
            .spawn_scoped(scope, move || {
                setns(ns, CloneFlags::CLONE_NEWNET)?;
                Ok::<T, nix::Error>(work())
            })
            .map_err(context)?
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            .map_err(|e| context(e.into()))
    })
}

/// A namespace can only be made by moving a thread into it, so a thread is spent on it.
fn unshare_onto(path: &Path) -> io::Result<()> {
    thread::scope(|scope| {
        thread::Builder::new()
            .name("new-netns".to_owned())
            .spawn_scoped(scope, || {
                unshare(CloneFlags::CLONE_NEWNET)?;
                mount(
                    Some(OWN),
                    path,
                    None::<&str>,
                    MsFlags::MS_BIND,
                    None::<&str>,
                )
            })?
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            .map_err(io::Error::from)
    })
}

/// Makes the directory of names a shared mount, as `ip netns` does, so that a name removed here goes in every mount namespace
/// that has seen it; else the copies would keep the namespace alive.
fn prepare_directory() -> io::Result<()> {
    fs::create_dir_all(DIRECTORY)?;
    let share = || {
        mount(
            None::<&str>,
            DIRECTORY,
            None::<&str>,
            MsFlags::MS_SHARED | MsFlags::MS_REC,
            None::<&str>,
        )
    };
    match share() {
        // Not a mount point yet: make it one.
        Err(nix::Error::EINVAL) => {
            mount(
                Some(DIRECTORY),
                DIRECTORY,
                None::<&str>,
                MsFlags::MS_BIND | MsFlags::MS_REC,
                None::<&str>,
            )?;
            Ok(share()?)
        }
        other => Ok(other?),
    }
}

fn path_of(name: &str) -> Result<PathBuf, NetError> {
    let bad =
        name.is_empty() || name.len() > 255 || name.starts_with('.') || name.contains(['/', '\0']);
    if bad {
        return Err(NetError::new(
            format!("network namespace name `{name}`"),
            io::Error::new(io::ErrorKind::InvalidInput, "a plain file name is wanted"),
        ));
    }
    Ok(Path::new(DIRECTORY).join(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_would_leave_the_directory_are_refused() {
        for name in ["", ".", "..", "a/b", "../etc", "nul\0"] {
            assert!(NetNs::create(name).is_err(), "{name:?}");
            assert!(NetNs::delete(name).is_err(), "{name:?}");
        }
    }

    #[test]
    fn a_namespace_is_the_same_as_itself() {
        let (a, b) = (NetNs::current().unwrap(), NetNs::current().unwrap());
        assert!(a.is_same(&b).unwrap());
    }
}
