//! The ring of events, read one by one.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use aya::maps::{Map, MapData, RingBuf};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use sluice_abi::event::Event;

use crate::load::LoadError;
use crate::sys;

/// The reader of events. Its descriptor becomes readable when there are some.
pub struct Events {
    ring: RingBuf<MapData>,
}

impl Events {
    pub(crate) fn new(fd: OwnedFd) -> Result<Self, LoadError> {
        let map = Map::from_map_data(MapData::from_fd(fd)?)?;
        Ok(Self {
            ring: map.try_into()?,
        })
    }

    /// The next event that is there, if any. A record shorter than an event, which these programs never write, is passed over.
    pub fn next_event(&mut self) -> Option<Event> {
        loop {
            let record = self.ring.next()?;
            if record.len() >= size_of::<Event>() {
                return Some(sys::read(&record));
            }
        }
    }

    /// Waits until there is an event; `false` if none came in time.
    ///
    /// # Errors
    /// The kernel refuses to wait; an interruption by a signal counts as no event.
    pub fn wait(&self, time: Duration) -> std::io::Result<bool> {
        let mut polled = [PollFd::new(self.ring.as_fd(), PollFlags::POLLIN)];
        let timeout = PollTimeout::try_from(time).unwrap_or(PollTimeout::MAX);
        match poll(&mut polled, timeout) {
            Ok(ready) => Ok(ready > 0),
            Err(nix::Error::EINTR) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}

impl AsFd for Events {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.ring.as_fd()
    }
}
