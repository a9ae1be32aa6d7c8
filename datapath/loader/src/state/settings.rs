//! The node's settings and the watermarks of its identity ranges.

use std::os::fd::OwnedFd;

use sluice_abi::config::Config;
use sluice_abi::{Range, maps};

use crate::sys::{Map, MappedWords, SysError};

/// The one writer of the settings.
#[derive(Debug)]
pub struct Settings {
    config: Map<u32, Config>,
    watermarks: MappedWords,
}

impl Settings {
    pub(crate) fn new(
        mut fd: impl FnMut(&str) -> Result<OwnedFd, SysError>,
    ) -> Result<Self, SysError> {
        let watermarks = Map::new(maps::WATERMARKS.name, fd(maps::WATERMARKS.name)?)?;
        Ok(Self {
            config: Map::new(maps::CONFIG.name, fd(maps::CONFIG.name)?)?,
            watermarks: MappedWords::new(maps::WATERMARKS.name, &watermarks)?,
        })
    }

    /// Writes the settings and makes the datapath ready: until then it drops everything.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn put(&self, config: &Config) -> Result<(), SysError> {
        self.config.put(
            &0,
            &Config {
                flags: config.flags | Config::READY,
                ..*config
            },
        )
    }

    /// The settings, if they were written.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn get(&self) -> Result<Option<Config>, SysError> {
        Ok(self
            .config
            .get(&0)?
            .filter(|config| config.flags & Config::READY != 0))
    }

    /// Raises a range's watermark to the number of the newest identity that all tables of this node know: its low 24 bits. Call it when
    /// the change that brought them is in force. It never falls but by [`Settings::reset_watermark`].
    pub fn raise_watermark(&self, range: Range, local: u32) {
        if u64::from(local) > self.watermarks.load(range as u32) {
            self.reset_watermark(range, local);
        }
    }

    /// Sets a range's watermark, also lower: for a new epoch of the range.
    pub fn reset_watermark(&self, range: Range, local: u32) {
        let within = self.watermarks.store(range as u32, u64::from(local));
        debug_assert!(within, "the array has an element for each range");
    }

    /// A range's watermark.
    #[must_use]
    pub fn watermark(&self, range: Range) -> u64 {
        self.watermarks.load(range as u32)
    }
}
