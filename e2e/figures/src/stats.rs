//! Medians and their intervals: how every figure of the benchmarks is summed up. No I/O, no clock.

/// A median with a distribution-free 95 % interval.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Median {
    /// The median.
    pub value: f64,
    /// Lower end of the interval.
    pub low: f64,
    /// Upper end.
    pub high: f64,
    /// How many samples it is of.
    pub samples: usize,
}

impl Median {
    /// The median of `samples`, with the interval between the order statistics that the binomial distribution gives.
    ///
    /// `None` for no samples.
    #[must_use]
    pub fn of(samples: &[f64]) -> Option<Self> {
        let mut sorted = samples.to_vec();
        sorted.sort_by(f64::total_cmp);
        let (first, last) = (*sorted.first()?, *sorted.last()?);
        let count = sorted.len();
        let value = if count.is_multiple_of(2) {
            f64::midpoint(sorted[count / 2 - 1], sorted[count / 2])
        } else {
            sorted[count / 2]
        };
        let rank = lower_rank(count);
        let (low, high) = match rank {
            Some(rank) => (sorted[rank], sorted[count - 1 - rank]),
            None => (first, last),
        };
        Some(Self {
            value,
            low,
            high,
            samples: count,
        })
    }
}

impl std::fmt::Display for Median {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:.3} [{:.3}, {:.3}]", self.value, self.low, self.high)
    }
}

/// The `percent`th percentile (nearest rank) of `sorted`, which must be in ascending order. `None` for an empty slice.
#[must_use]
pub fn percentile(sorted: &[u64], percent: usize) -> Option<u64> {
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted.get(rank - 1).copied()
}

/// The largest 0-based rank whose order statistics still enclose the median with 95 % confidence; `None` if too few samples do.
fn lower_rank(count: usize) -> Option<usize> {
    let mut probability = 0.5_f64.powi(i32::try_from(count).ok()?);
    let mut cumulated = 0.0;
    let mut rank = None;
    for k in 0..count / 2 {
        cumulated += probability;
        if cumulated > 0.025 {
            break;
        }
        rank = Some(k);
        #[allow(
            clippy::cast_precision_loss,
            reason = "sample counts are far below 2^52"
        )]
        {
            probability *= (count - k) as f64 / (k + 1) as f64;
        }
    }
    rank
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn median_of_an_even_count_is_between() {
        let median = Median::of(&[4.0, 1.0, 3.0, 2.0]).unwrap();
        assert!((median.value - 2.5).abs() < 1e-9);
    }

    #[test]
    fn interval_of_twenty_is_the_sixth_and_fifteenth() {
        let samples: Vec<f64> = (1..=20).map(f64::from).collect();
        let median = Median::of(&samples).unwrap();
        assert_eq!((median.low, median.high), (6.0, 15.0));
    }

    #[test]
    fn no_samples_no_median() {
        assert_eq!(Median::of(&[]), None);
        assert_eq!(percentile(&[], 50), None);
    }

    #[test]
    fn percentile_is_nearest_rank() {
        let sorted: Vec<u64> = (1..=100).collect();
        assert_eq!(percentile(&sorted, 50), Some(50));
        assert_eq!(percentile(&sorted, 99), Some(99));
        assert_eq!(percentile(&[7], 1), Some(7));
    }
}
