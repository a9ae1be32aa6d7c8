//! What the compilation of one table remembers by list of rules, so that what many peers share is found once. Memory only: no rule is read
//! here.

use std::sync::Arc;

use sluice_abi::{Scope, policy::PeerCell};

use crate::{
    gather::{Gathering, List},
    program::Program,
};

/// Room to compile one table after another in, so that memory is not asked for each anew.
#[derive(Debug, Default)]
pub(crate) struct Room {
    pub(super) gathering: Gathering,
    pub(super) cells: CellsByList,
    pub(super) programs: ProgramsByList,
    /// By list: whether some rule is by port name, as far as asked for.
    pub(super) named: Vec<Option<bool>>,
}

/// What holds for peers that the same rules name, by scope and whether the peer is the local host, then by list; absent where not
/// looked up yet.
#[derive(Debug, Default)]
pub(super) struct CellsByList([[Vec<CellUse>; 2]; Scope::COUNT]);

#[derive(Clone, Copy, Debug)]
pub(super) struct CellUse {
    pub(super) cell: PeerCell,
    /// Entries that have come to hold the cell.
    pub(super) uses: u32,
}

impl CellsByList {
    pub(super) fn at(&mut self, list: List, scope: Scope, local_host: bool) -> &mut CellUse {
        let unknown = CellUse {
            cell: PeerCell::ABSENT,
            uses: 0,
        };
        at(
            &mut self.0[scope as usize][usize::from(local_host)],
            list.number(),
            unknown,
        )
    }

    /// Empties it; what was in it.
    pub(super) fn take(&mut self) -> impl Iterator<Item = CellUse> {
        self.0
            .iter_mut()
            .flatten()
            .flat_map(|cells| cells.drain(..))
    }
}

/// The programs behind [`CellsByList`], by scope, then by list.
pub(super) type ProgramsByList = [Vec<Joined>; Scope::COUNT];

/// What is known of the program of a list.
#[derive(Clone, Debug)]
pub(super) enum Joined {
    Unknown,
    /// Its last rule adds nothing to what the list before says.
    AsBefore,
    Own(Arc<Program>),
}

/// The element of this index, where a list that is too short is filled up.
pub(super) fn at<T: Clone>(list: &mut Vec<T>, index: usize, filling: T) -> &mut T {
    if list.len() <= index {
        list.resize(index + 1, filling);
    }
    &mut list[index]
}
