//! The statements that make a table what its staging table says.

use tokio_postgres::GenericClient;

use crate::key::Key;
use crate::staging::Staged;
use crate::{Error, Ident};

/// A table and its staging table, and how rows of the two are compared.
///
/// Rows of the same key are compared byte for byte, as the server holds them, over the columns of the file alone
/// (PostgreSQL manual, "Composite Type Comparison": `*<>`). So `1.0` becomes `1.00`, and types that have no notion of what is
/// equal, such as json, are compared as well.
///
/// Without a key rows are told apart by their text, and each is to be there as often as in the file.
pub(crate) struct Difference {
    target: String,
    staging: String,
    /// The columns of the file.
    columns: Vec<Ident>,
    /// The other ones of the table that can be written.
    others: Vec<Ident>,
    key: Option<Key>,
    /// Those that an update sets: what the key does not say already.
    updated: Vec<Ident>,
    /// Whether an update would set what the server lets nobody update: GENERATED ALWAYS AS IDENTITY.
    pub(crate) is_update_refused: bool,
    /// Whether rows can be deleted and inserted again and nobody notices: no foreign key leads to the table but such as
    /// are checked at the end, and do nothing.
    pub(crate) is_replaceable: bool,
    /// Of the server: 150000 is 15.
    version: i32,
    has_rules: bool,
}

impl Difference {
    pub(crate) async fn of(client: &impl GenericClient, staged: &Staged) -> Result<Self, Error> {
        let action = || Error::database(format!("read the columns of {:#}", staged.target));
        let key = staged.key(client).await?;
        let row = client
            .query_one(
                "SELECT c.relhasrules, pg_catalog.current_setting('server_version_num')::int,
                        NOT EXISTS (SELECT FROM pg_catalog.pg_constraint k
                                    WHERE k.contype = 'f' AND k.confrelid = c.oid
                                      AND NOT (k.condeferrable AND k.confdeltype = 'a')),
                        ARRAY(SELECT a.attname::text FROM pg_catalog.pg_attribute a
                              WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = ''
                              ORDER BY a.attnum),
                        ARRAY(SELECT a.attname::text FROM pg_catalog.pg_attribute a
                              WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND a.attidentity = 'a')
                 FROM pg_catalog.pg_class c WHERE c.oid = $1",
                &[&staged.target_oid],
            )
            .await
            .map_err(action())?;
        let (all, always): (Vec<String>, Vec<String>) = (row.get(3), row.get(4));
        let (columns, others): (Vec<String>, Vec<String>) =
            all.into_iter().partition(|name| staged.columns.contains(name));
        let idents = |names: Vec<String>| names.into_iter().filter_map(|name| Ident::new(name).ok()).collect();
        let (columns, others): (Vec<Ident>, Vec<Ident>) = (idents(columns), idents(others));
        let is_said = |name: &Ident| {
            key.iter().flat_map(|key| &key.columns).any(|column| column.is_exact && column.name == *name)
        };
        let updated: Vec<Ident> = columns.iter().filter(|name| !is_said(name)).cloned().collect();
        Ok(Self {
            target: staged.target.to_string(),
            staging: staged.table.to_string(),
            is_update_refused: key.is_some() && updated.iter().any(|name| always.iter().any(|a| a == name.as_str())),
            is_replaceable: row.get(2),
            version: row.get(1),
            has_rules: row.get(0),
            columns,
            others,
            key,
            updated,
        })
    }

    /// Deletes the rows that the file does not have.
    pub(crate) fn delete(&self) -> String {
        let Self { target, staging, .. } = self;
        match &self.key {
            Some(key) => format!(
                "DELETE FROM {target} t WHERE NOT EXISTS (SELECT FROM {staging} s WHERE {})",
                key.matches("t", "s")
            ),
            None => format!(
                "DELETE FROM {target} t USING (
                     SELECT o.table_id, o.id FROM {} o LEFT JOIN {} n ON n.digest = o.digest AND n.number = o.number
                     WHERE n.digest IS NULL) gone
                 WHERE t.tableoid = gone.table_id AND t.ctid = gone.id",
                self.numbered(target),
                self.numbered(staging)
            ),
        }
    }

    /// Changes the rows that the file has otherwise, if there is anything that could be otherwise.
    pub(crate) fn update(&self) -> Option<String> {
        let Self { target, staging, key, .. } = self;
        let key = key.as_ref().filter(|_| !self.updated.is_empty())?;
        Some(format!(
            "UPDATE {target} t SET {} FROM {staging} s WHERE {} AND {}",
            self.assignments(),
            key.matches("t", "s"),
            self.differ()
        ))
    }

    /// Inserts the rows that the table does not have.
    pub(crate) fn insert(&self) -> String {
        let Self { target, staging, .. } = self;
        let names = list(&self.columns, "");
        let condition = match &self.key {
            Some(key) => format!("NOT EXISTS (SELECT FROM {target} t WHERE {})", key.matches("t", "s")),
            None => format!(
                "s.ctid IN (SELECT n.id FROM {} n LEFT JOIN {} o ON o.digest = n.digest AND o.number = n.number
                            WHERE o.digest IS NULL)",
                self.numbered(staging),
                self.numbered(target)
            ),
        };
        // Such as it is in the file, also where the server would number rows itself.
        format!(
            "INSERT INTO {target} ({names}) OVERRIDING SYSTEM VALUE SELECT {} FROM {staging} s WHERE {condition}",
            list(&self.columns, "s.")
        )
    }

    /// Both [`update`](Self::update) and [`insert`](Self::insert), in one pass over the tables. `None` where that cannot be
    /// had: it takes a key, PostgreSQL 15, and a table without rules.
    pub(crate) fn merge(&self) -> Option<String> {
        let Self { target, staging, key, .. } = self;
        let key = key.as_ref().filter(|_| self.version >= 150_000 && !self.has_rules)?;
        let update = match self.updated.is_empty() {
            true => String::new(),
            false => format!("WHEN MATCHED AND {} THEN UPDATE SET {}", self.differ(), self.assignments()),
        };
        Some(format!(
            "MERGE INTO {target} t USING {staging} s ON {} {update}
             WHEN NOT MATCHED THEN INSERT ({}) OVERRIDING SYSTEM VALUE VALUES ({})",
            key.matches("t", "s"),
            list(&self.columns, ""),
            list(&self.columns, "s."),
        ))
    }

    /// All three, in one pass, from PostgreSQL 17 on: a query whose row has how many were added, changed and removed.
    pub(crate) fn merge_all(&self) -> Option<String> {
        let merge = self.merge().filter(|_| self.version >= 170_000)?;
        Some(format!(
            "WITH done AS ({merge} WHEN NOT MATCHED BY SOURCE THEN DELETE RETURNING merge_action() AS action)
             SELECT pg_catalog.count(*) FILTER (WHERE action = 'INSERT'),
                    pg_catalog.count(*) FILTER (WHERE action = 'UPDATE'),
                    pg_catalog.count(*) FILTER (WHERE action = 'DELETE') FROM done"
        ))
    }

    /// In place of [`update`](Self::update): deletes those rows and then inserts them, so that they may exchange what must
    /// be unique. Columns that the file lacks keep their values.
    pub(crate) fn replace(&self) -> Option<String> {
        let Self { target, staging, key, .. } = self;
        let key = key.as_ref().filter(|_| !self.updated.is_empty())?;
        let mut names = vec![list(&self.columns, "")];
        let mut values = vec![list(&self.columns, "s.")];
        if !self.others.is_empty() {
            names.push(list(&self.others, ""));
            values.push(list(&self.others, "t."));
        }
        let (names, values) = (names.join(", "), values.join(", "));
        let order: Vec<_> = key.names().map(Ident::to_string).collect();
        // To be sorted, they must all have been deleted.
        Some(format!(
            "WITH gone AS (DELETE FROM {target} t USING {staging} s WHERE {} AND {} RETURNING {values})
             INSERT INTO {target} ({names}) OVERRIDING SYSTEM VALUE SELECT {names} FROM gone ORDER BY {}",
            key.matches("t", "s"),
            self.differ(),
            order.join(", ")
        ))
    }

    fn assignments(&self) -> String {
        self.updated.iter().map(|name| format!("{name} = s.{name}")).collect::<Vec<_>>().join(", ")
    }

    fn differ(&self) -> String {
        let row = |alias| format!("ROW({})::record", list(&self.updated, alias));
        format!("{} OPERATOR(pg_catalog.*<>) {}", row("t."), row("s."))
    }

    /// The rows of a table with a digest of each, and numbers for those that are equal.
    fn numbered(&self, table: &str) -> String {
        let digest =
            format!("pg_catalog.sha256(pg_catalog.convert_to(ROW({})::text, 'UTF8'))", list(&self.columns, "x."));
        format!(
            "(SELECT y.*, pg_catalog.row_number() OVER (PARTITION BY digest ORDER BY table_id, id) AS number
              FROM (SELECT x.tableoid AS table_id, x.ctid AS id, {digest} AS digest FROM {table} x) y)"
        )
    }
}

fn list(names: &[Ident], prefix: &str) -> String {
    names.iter().map(|name| format!("{prefix}{name}")).collect::<Vec<_>>().join(", ")
}
