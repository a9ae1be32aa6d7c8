//! What the operator said last: a snapshot and the updates after it, as bytes, in order. What is in them may not enter.

use std::path::Path;

use redb::{ReadableDatabase as _, ReadableTable as _, TableDefinition};

use super::{StoreError, file::StateFile};

/// By place in the order; the first is a snapshot.
const UPDATES: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("updates");

/// See the module.
#[derive(Debug)]
pub struct Updates {
    file: StateFile,
    next: u64,
    /// Bytes after the snapshot.
    tail: usize,
    /// Bytes of the snapshot.
    head: usize,
}

impl Updates {
    /// Opens the file, making it where there is none.
    ///
    /// # Errors
    /// Another process has it, or the file system refuses.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let file = StateFile::open(path)?;
        let begun = file.database.begin_write().map_err(file.error())?;
        begun.open_table(UPDATES).map_err(file.error())?;
        begun.commit().map_err(file.error())?;
        let mut store = Self {
            file,
            next: 0,
            tail: 0,
            head: 0,
        };
        store.each(|_| ())?;
        Ok(store)
    }

    /// Hands each update to `take`, in order.
    ///
    /// # Errors
    /// The file can't be read.
    pub fn each(&mut self, mut take: impl FnMut(&[u8])) -> Result<(), StoreError> {
        let error = self.file.error();
        let read = self.file.database.begin_read().map_err(self.file.error())?;
        let table = read.open_table(UPDATES).map_err(self.file.error())?;
        (self.next, self.head, self.tail) = (0, 0, 0);
        for entry in table.iter().map_err(self.file.error())? {
            let (key, value) = entry.map_err(&error)?;
            let bytes = value.value();
            if self.head == 0 {
                self.head = bytes.len();
            } else {
                self.tail += bytes.len();
            }
            self.next = key.value() + 1;
            take(bytes);
        }
        Ok(())
    }

    /// Adds an update.
    ///
    /// # Errors
    /// The file system refuses.
    pub fn append(&mut self, update: &[u8]) -> Result<(), StoreError> {
        self.write(update, false)?;
        self.tail += update.len();
        Ok(())
    }

    /// Replaces everything by a snapshot.
    ///
    /// # Errors
    /// The file system refuses.
    pub fn replace(&mut self, snapshot: &[u8]) -> Result<(), StoreError> {
        self.write(snapshot, true)?;
        (self.head, self.tail) = (snapshot.len(), 0);
        Ok(())
    }

    /// Whether the updates after the snapshot have outgrown it, so that a new snapshot is worth its cost.
    #[must_use]
    pub const fn is_long(&self) -> bool {
        const LEAST: usize = 1 << 20;
        self.tail > LEAST && self.tail > self.head
    }

    fn write(&mut self, bytes: &[u8], alone: bool) -> Result<(), StoreError> {
        let begun = self
            .file
            .database
            .begin_write()
            .map_err(self.file.error())?;
        {
            let mut table = begun.open_table(UPDATES).map_err(self.file.error())?;
            if alone {
                table.retain(|_, _| false).map_err(self.file.error())?;
            }
            table.insert(self.next, bytes).map_err(self.file.error())?;
        }
        begun.commit().map_err(self.file.error())?;
        self.next += 1;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(store: &mut Updates) -> Vec<Vec<u8>> {
        let mut found = Vec::new();
        store.each(|bytes| found.push(bytes.to_vec())).unwrap();
        found
    }

    #[test]
    fn updates_keep_their_order_and_a_snapshot_replaces_them() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("updates.redb");
        let mut store = Updates::open(&path).unwrap();
        store.replace(b"snapshot").unwrap();
        for number in 0..300_u32 {
            store.append(&number.to_be_bytes()).unwrap();
        }
        drop(store);
        let mut store = Updates::open(&path).unwrap();
        let found = all(&mut store);
        assert_eq!(
            (found.len(), found[0].as_slice()),
            (301, b"snapshot".as_slice())
        );
        assert_eq!(found[300], 299_u32.to_be_bytes());
        store.replace(b"later").unwrap();
        store.append(b"and more").unwrap();
        assert_eq!(all(&mut store), [b"later".to_vec(), b"and more".to_vec()]);
    }

    #[test]
    fn a_long_tail_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let mut store = Updates::open(&folder.path().join("updates.redb")).unwrap();
        store.replace(b"s").unwrap();
        assert!(!store.is_long());
        store.append(&vec![0; 2 << 20]).unwrap();
        assert!(store.is_long());
        store.replace(&vec![0; 4 << 20]).unwrap();
        store.append(&vec![0; 2 << 20]).unwrap();
        assert!(!store.is_long());
    }
}
