//! The benchmarks: each makes what it measures, measures, cleans up and gives markdown tables. What a figure is to reach is said beside it.
//!
//! ```text
//! ladder   a world whose server is reached by N rules: verdict, change, wire and rules stand on it
//! pair     the ladder's two pods, live: namespaces, veths, programs
//! calico   what was measured of Calico, to stand beside what verdict measures
//! report   tables as markdown; the section of docs/benchmarks.md they go to
//! ```

mod calico;
pub mod change;
pub mod cni;
pub mod compile;
pub mod ladder;
pub mod pair;
pub mod rules;
pub mod verdict;
pub mod wire;

pub use sluice_figures::report;

/// How much is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Effort {
    /// Fewer rounds and smaller worlds: to see that everything works. Its figures are not worth keeping.
    pub quick: bool,
}

impl Effort {
    /// One of two amounts.
    pub fn of<T>(self, whole: T, quick: T) -> T {
        if self.quick { quick } else { whole }
    }
}
