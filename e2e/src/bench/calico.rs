//! What Calico's eBPF programs cost where the same was measured of them, beside what was just measured of Sluice. Measuring may not enter.

use super::{ladder::Peers, report::Table, verdict::Point};

/// What [`Point::net`] begins with.
const ESTABLISHED: usize = 0;
const DENIED: usize = 1;
/// New and allowed, each packet once: a packet that opens a flow can't be repeated.
const ALLOWED: usize = 3;

/// One of Calico's figures: pod ingress, where the last of `rules` rules matches; nanoseconds of a packet, 38 of harness subtracted.
struct Theirs {
    what: &'static str,
    cidrs: bool,
    rules: u32,
    family: usize,
    nanoseconds: f64,
    column: usize,
}

const THEIRS: [Theirs; 8] = [
    theirs("established, IPv4", (false, 10), 0, 176.0, ESTABLISHED),
    theirs("established, IPv6", (false, 10), 1, 224.0, ESTABLISHED),
    theirs("new and allowed, 10 rules", (true, 10), 0, 747.0, ALLOWED),
    theirs(
        "new and denied, 10 CIDR rules",
        (true, 10),
        0,
        263.0,
        DENIED,
    ),
    theirs(
        "new and denied, 1,000 CIDR rules",
        (true, 1_000),
        0,
        1_260.0,
        DENIED,
    ),
    theirs(
        "new and denied, 10,000 CIDR rules",
        (true, 10_000),
        0,
        12_553.0,
        DENIED,
    ),
    theirs(
        "new and denied, 1,000 set rules",
        (false, 1_000),
        0,
        54_005.0,
        DENIED,
    ),
    theirs(
        "new and denied, 10,000 set rules",
        (false, 10_000),
        0,
        1_160_852.0,
        DENIED,
    ),
];

const fn theirs(
    what: &'static str,
    (cidrs, rules): (bool, u32),
    family: usize,
    nanoseconds: f64,
    column: usize,
) -> Theirs {
    Theirs {
        what,
        cidrs,
        rules,
        family,
        nanoseconds,
        column,
    }
}

/// The figures side by side, those that both have. Calico's set rules stand beside label rules.
pub(super) fn beside(points: &[Point]) -> Table {
    let mut table = Table::new(&["packet", "Calico's eBPF", "Sluice", "Calico's / Sluice's"]);
    for theirs in &THEIRS {
        let same = |point: &&Point| {
            let cidrs = point.peers == Peers::Cidrs;
            let labels = matches!(point.peers, Peers::Groups { .. });
            (if theirs.cidrs { cidrs } else { labels })
                && (point.rules, point.family) == (theirs.rules, theirs.family)
        };
        if let Some(point) = points.iter().find(same) {
            let ours = point.net[theirs.column];
            table.row(&[
                &theirs.what,
                &format!("{:.0}", theirs.nanoseconds),
                &format!("{ours:.0}"),
                &format!("{:.2}×", theirs.nanoseconds / ours),
            ]);
        }
    }
    table
}
