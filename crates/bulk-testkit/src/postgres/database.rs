use std::{fmt, process};

use super::{Error, client, connection_url};

/// The longest name of a database, in bytes: PostgreSQL's NAMEDATALEN less its final zero. It would cut a longer one
/// silently, and so make two names one.
const LONGEST_NAME: usize = 63;

/// A fresh, empty database, UTF-8 with the C collation, from `template0`.
///
/// It is dropped with this value, even if connections to it are open: they are ended. A drop blocks until that is done,
/// and says nothing where it fails (the server may be gone, and its databases with it); [`Database::remove`] does.
pub struct Database {
    name: String,
    url: String,
    /// URL of the database from which this one is created and dropped.
    maintenance_url: String,
    removed: bool,
}

impl Database {
    pub(super) fn create(maintenance_url: &str, name_prefix: &str) -> Result<Self, Error> {
        if name_prefix.contains('\0') {
            return Err(Error::DatabaseName { name: name_prefix.to_owned() });
        }
        let unique = format!("_{}_{:016x}", process::id(), fastrand::u64(..));
        let mut name = name_prefix.to_owned();
        while name.len() + unique.len() > LONGEST_NAME {
            name.pop();
        }
        name.push_str(&unique);
        let sql =
            format!("CREATE DATABASE {} TEMPLATE template0 ENCODING 'UTF8' LC_COLLATE 'C' LC_CTYPE 'C'", quoted(&name));
        client::execute(maintenance_url, &sql, "create a database")?;
        Ok(Self {
            url: connection_url::with_database(maintenance_url, &name),
            name,
            maintenance_url: maintenance_url.to_owned(),
            removed: false,
        })
    }

    /// The name: the prefix that was asked for (cut where the whole would be too long), the process, a random number.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The URL to connect to it, for [`tokio_postgres::connect`], `psql` and the like; with the password, if there is
    /// one.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The same for another role of the server, with this password, whatever form the server's URL has.
    pub fn url_for(&self, role: &str, password: &str) -> String {
        connection_url::with_role(&self.url, role, password)
    }

    /// Drops it as the end of the value does, and says how that went.
    ///
    /// # Errors
    /// [`Error::Query`] where the server is not there or refuses.
    pub fn remove(mut self) -> Result<(), Error> {
        self.drop_database()
    }

    fn drop_database(&mut self) -> Result<(), Error> {
        self.removed = true;
        let sql = format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", quoted(&self.name));
        client::execute(&self.maintenance_url, &sql, "drop a database").map(drop)
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        if !self.removed {
            let _ = self.drop_database();
        }
    }
}

impl fmt::Debug for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Database").field("name", &self.name).finish_non_exhaustive()
    }
}

fn quoted(identifier: &str) -> String {
    format!("\"{}\"", identifier.replace('"', "\"\""))
}
