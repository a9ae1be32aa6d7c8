//! What a delta ended and is still in the kernel. How it is taken out may not enter; that it is not forgotten before it is out is all there is
//! here.

use sluice_datapath::writer::Change;

/// What is to be taken out once no packet can be at it any more.
#[derive(Debug, Default)]
pub(crate) struct Outgoing(Change);

impl Outgoing {
    /// Waits for being taken out. What waited before must be out.
    pub(crate) fn hold(&mut self, change: Change) {
        self.0 = change;
    }

    /// Waits besides what waits already.
    pub(crate) fn hold_too(&mut self, change: Change) {
        self.0.release_tables.extend(change.release_tables);
        self.0.release_programs.extend(change.release_programs);
        self.0
            .release_attributions
            .extend(change.release_attributions);
    }

    /// Takes out what waits, with `apply`; nothing waits afterwards if that could, and all of it if not. `None` where nothing waited.
    ///
    /// # Errors
    /// What `apply` says.
    pub(crate) fn take_out<R, E>(
        &mut self,
        apply: impl FnOnce(&Change) -> Result<R, E>,
    ) -> Result<Option<R>, E> {
        if self.0 == Change::default() {
            return Ok(None);
        }
        let done = apply(&self.0)?;
        self.0 = Change::default();
        Ok(Some(done))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ending(table: u32) -> Change {
        Change {
            release_tables: vec![table],
            ..Change::default()
        }
    }

    #[test]
    fn what_could_not_be_taken_out_is_tried_again() {
        let mut outgoing = Outgoing::default();
        outgoing.hold(ending(7));
        assert_eq!(outgoing.take_out(|_| Err::<(), _>("full")), Err("full"));
        let tried = outgoing.take_out(|change| Ok::<_, ()>(change.clone()));
        assert_eq!(tried, Ok(Some(ending(7))));
    }

    #[test]
    fn what_is_out_is_not_taken_out_twice() {
        let mut outgoing = Outgoing::default();
        outgoing.hold(ending(7));
        outgoing.hold_too(ending(8));
        let taken = outgoing.take_out(|change| Ok::<_, ()>(change.release_tables.clone()));
        assert_eq!(taken, Ok(Some(vec![7, 8])));
        assert_eq!(outgoing.take_out(|_| Ok::<_, ()>(())), Ok(None));
    }
}
