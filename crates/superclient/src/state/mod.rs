//! Derived state on disk: views, `kv`, entity snapshots. It may be deleted at
//! any time; the log has everything.
//!
//! Commits are not synced (storage of a service is ephemeral, paper §9.2): after
//! a power failure a service only starts a little further back.

use std::path::Path;
use std::sync::Arc;

use redb::{Database, Durability, ReadableDatabase, TableDefinition};

const TABLE: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("state");

/// One service's state, shared by its instances.
#[derive(Clone)]
pub(crate) struct State {
    database: Arc<Database>,
}

/// `None` deletes.
pub(crate) type Write = (Vec<u8>, Option<Vec<u8>>);

impl State {
    pub fn open(path: &Path) -> Result<Self, String> {
        let open = || -> Result<Database, redb::Error> {
            let database = Database::create(path)?;
            let write = database.begin_write()?;
            write.open_table(TABLE)?;
            write.commit()?;
            Ok(database)
        };
        // Damaged state is worth nothing: the log rebuilds it.
        let database = open().or_else(|error| {
            if matches!(error, redb::Error::DatabaseAlreadyOpen) {
                return Err(error.to_string());
            }
            tracing::warn!(path = %path.display(), %error, "the state is unreadable and is rebuilt from the log");
            let _ = std::fs::remove_file(path);
            open().map_err(|error| error.to_string())
        })?;
        Ok(Self { database: Arc::new(database) })
    }

    pub fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, redb::Error> {
        let read = self.database.begin_read()?;
        let table = read.open_table(TABLE)?;
        Ok(table.get(key)?.map(|value| value.value().to_vec()))
    }

    /// All entries whose key begins with `prefix`, in order.
    pub fn scan(&self, prefix: &[u8]) -> Result<Vec<(Vec<u8>, Vec<u8>)>, redb::Error> {
        let read = self.database.begin_read()?;
        let table = read.open_table(TABLE)?;
        let mut found = Vec::new();
        for entry in table.range(prefix..)? {
            let (key, value) = entry?;
            if !key.value().starts_with(prefix) {
                break;
            }
            found.push((key.value().to_vec(), value.value().to_vec()));
        }
        Ok(found)
    }

    /// All or nothing.
    pub fn commit(&self, writes: Vec<Write>) -> Result<(), redb::Error> {
        let mut write = self.database.begin_write()?;
        write
            .set_durability(Durability::None)
            .map_err(|error| redb::Error::Io(std::io::Error::other(error)))?;
        {
            let mut table = write.open_table(TABLE)?;
            for (key, value) in writes {
                match value {
                    Some(value) => table.insert(key.as_slice(), value.as_slice())?,
                    None => table.remove(key.as_slice())?,
                };
            }
        }
        write.commit()?;
        Ok(())
    }
}
