//! Endpoints and resting addresses, as written down. Who gets an address may not enter.

use std::{net::IpAddr, path::Path};

use redb::{ReadableDatabase as _, ReadableTable as _, TableDefinition};
use sluice_cni::protocol::AttachmentId;

use super::{StoreError, file::StateFile};
use crate::endpoint::Record;

/// By container and interface, as JSON.
const ENDPOINTS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("endpoints");
/// When an address came back, in seconds since 1970.
const RESTING: TableDefinition<'_, &str, u64> = TableDefinition::new("resting");

/// See the module.
#[derive(Debug)]
pub struct Endpoints(StateFile);

impl Endpoints {
    /// Opens the file, making it where there is none.
    ///
    /// # Errors
    /// Another process has it, or the file system refuses.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let file = StateFile::open(path)?;
        let begun = file.database.begin_write().map_err(file.error())?;
        begun.open_table(ENDPOINTS).map_err(file.error())?;
        begun.open_table(RESTING).map_err(file.error())?;
        begun.commit().map_err(file.error())?;
        Ok(Self(file))
    }

    /// All endpoints.
    ///
    /// # Errors
    /// The file can't be read, or has an entry that can't be understood.
    pub fn records(&self) -> Result<Vec<Record>, StoreError> {
        let read = self.0.database.begin_read().map_err(self.0.error())?;
        let table = read.open_table(ENDPOINTS).map_err(self.0.error())?;
        let mut found = Vec::new();
        for entry in table.iter().map_err(self.0.error())? {
            let (key, value) = entry.map_err(self.0.error())?;
            let record = serde_json::from_slice(value.value())
                .map_err(|error| self.0.bad_entry(key.value(), &error))?;
            found.push(record);
        }
        Ok(found)
    }

    /// Addresses that came back, and when.
    ///
    /// # Errors
    /// As for [`Endpoints::records`].
    pub fn resting(&self) -> Result<Vec<(IpAddr, u64)>, StoreError> {
        let read = self.0.database.begin_read().map_err(self.0.error())?;
        let table = read.open_table(RESTING).map_err(self.0.error())?;
        let mut found = Vec::new();
        for entry in table.iter().map_err(self.0.error())? {
            let (key, value) = entry.map_err(self.0.error())?;
            let address = key
                .value()
                .parse()
                .map_err(|error| self.0.bad_entry(key.value(), &error))?;
            found.push((address, value.value()));
        }
        Ok(found)
    }

    /// Writes an endpoint down; its addresses rest no more.
    ///
    /// # Errors
    /// The file system refuses.
    pub fn put(&self, record: &Record) -> Result<(), StoreError> {
        let text = serde_json::to_vec(record)
            .map_err(|error| self.0.bad_entry(&record.host_name, &error))?;
        let begun = self.0.database.begin_write().map_err(self.0.error())?;
        {
            let mut endpoints = begun.open_table(ENDPOINTS).map_err(self.0.error())?;
            endpoints
                .insert(key(&record.id).as_str(), text.as_slice())
                .map_err(self.0.error())?;
            let mut resting = begun.open_table(RESTING).map_err(self.0.error())?;
            for address in &record.addresses {
                resting
                    .remove(address.to_string().as_str())
                    .map_err(self.0.error())?;
            }
        }
        begun.commit().map_err(self.0.error())
    }

    /// Takes an endpoint out; its addresses rest from `now` on. Those that have rested since before `rested` are forgotten.
    ///
    /// # Errors
    /// The file system refuses.
    pub fn end(&self, record: &Record, now: u64, rested: u64) -> Result<(), StoreError> {
        let begun = self.0.database.begin_write().map_err(self.0.error())?;
        {
            let mut endpoints = begun.open_table(ENDPOINTS).map_err(self.0.error())?;
            endpoints
                .remove(key(&record.id).as_str())
                .map_err(self.0.error())?;
            let mut resting = begun.open_table(RESTING).map_err(self.0.error())?;
            resting
                .retain(|_, since| since >= rested)
                .map_err(self.0.error())?;
            for address in &record.addresses {
                resting
                    .insert(address.to_string().as_str(), now)
                    .map_err(self.0.error())?;
            }
        }
        begun.commit().map_err(self.0.error())
    }

    /// Brings all that was written to the disk.
    ///
    /// # Errors
    /// The disk fails.
    pub fn flush(&self) -> Result<(), StoreError> {
        self.0.flush()
    }
}

fn key(id: &AttachmentId) -> String {
    format!("{}/{}", id.container, id.interface)
}

#[cfg(test)]
mod tests {
    use sluice_cni::protocol::Attachment;

    use super::*;

    fn record(container: &str) -> Record {
        let wanted = Attachment {
            id: AttachmentId {
                container: container.to_owned(),
                interface: "eth0".to_owned(),
            },
            sandbox: "/x".to_owned(),
            pod: None,
        };
        let addresses = ["10.0.0.1", "fd00::1"].map(|text| text.parse().unwrap());
        Record::new(&wanted, 7, addresses.to_vec(), 1500, 11)
    }

    #[test]
    fn records_and_resting_addresses_are_found_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state/endpoints.redb");
        let store = Endpoints::open(&path).unwrap();
        store.put(&record("a")).unwrap();
        store.put(&record("b")).unwrap();
        store.end(&record("b"), 100, 0).unwrap();
        drop(store);
        let store = Endpoints::open(&path).unwrap();
        assert_eq!(store.records().unwrap(), [record("a")]);
        let resting = store.resting().unwrap();
        assert_eq!(resting.len(), 2);
        assert!(resting.iter().all(|(_, since)| *since == 100));
        // Given again, they rest no more; rested out, they are forgotten.
        store.put(&record("a")).unwrap();
        assert_eq!(store.resting().unwrap(), []);
        store.flush().unwrap();
    }

    #[test]
    fn a_file_is_one_process_s() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("endpoints.redb");
        let _held = Endpoints::open(&path).unwrap();
        assert!(Endpoints::open(&path).is_err());
    }

    #[test]
    fn what_is_no_database_is_set_aside() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("endpoints.redb");
        std::fs::write(&path, vec![0x5a; 1 << 16]).unwrap();
        let store = Endpoints::open(&path).unwrap();
        assert_eq!(store.records().unwrap(), []);
        assert!(path.with_extension("broken").exists());
    }
}
