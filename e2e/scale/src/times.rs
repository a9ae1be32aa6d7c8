//! Times of repeated changes.

use std::time::Duration;

use sluice_figures::stats::percentile;

/// See the module.
#[derive(Clone, Debug, Default)]
pub(crate) struct Times(Vec<u64>);

impl Times {
    pub(crate) fn add(&mut self, took: Duration) {
        self.0
            .push(u64::try_from(took.as_micros()).unwrap_or(u64::MAX));
    }

    /// This percentile in milliseconds.
    pub(crate) fn ms(&self, percent: usize) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_unstable();
        #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
        let micros = percentile(&sorted, percent).unwrap_or_default() as f64;
        micros / 1e3
    }

    pub(crate) fn count(&self) -> usize {
        self.0.len()
    }
}
