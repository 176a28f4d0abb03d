use super::literal;
use super::table::RowPolicy;
use crate::KeyRange;

/// A table as statements speak of it: all names are quoted, and `o` stands for it.
#[derive(Clone, Debug)]
pub(super) struct Target {
    /// For statements.
    pub(super) name: String,
    /// For people.
    pub(super) shown: String,
    pub(super) key: String,
    /// What sorts keys by bytes: the column, or that with a collation.
    pub(super) order: String,
    /// What finds a key: the same, or the column where it has an index by another collation, as long as that tells apart
    /// what differs.
    pub(super) equal: String,
    /// The column, and the name as a literal.
    pub(super) bucket: Option<(String, String)>,
    pub(super) etag: String,
    pub(super) size: Option<String>,
    pub(super) last_modified: Option<Time>,
    pub(super) seen_at: Option<Time>,
    pub(super) content: Option<String>,
    pub(super) rows: RowPolicy,
    /// The columns of a unique index that tells objects apart.
    pub(super) arbiter: Option<String>,
    /// Whether rows can be inserted first and changed where they are there: nothing but an object stands in them.
    pub(super) is_ours: bool,
    /// Whether an index has the keys in order.
    pub(super) is_indexed: bool,
    pub(super) missing_index: Option<String>,
    pub(super) can_be_sampled: bool,
}

/// A column of times.
#[derive(Clone, Debug)]
pub(super) struct Time {
    pub(super) column: String,
    /// It has no time zone; UTC is meant.
    pub(super) is_plain: bool,
}

/// Where changes come in.
pub(super) const CHANGES: &str = "pg_temp.bulk_known_change";

impl Time {
    /// As a `timestamptz`.
    fn read(&self) -> String {
        if self.is_plain { format!("(o.{} AT TIME ZONE 'UTC')", self.column) } else { format!("o.{}", self.column) }
    }

    /// A `timestamptz` for the column.
    fn written(&self, time: &str) -> String {
        if self.is_plain { format!("({time} AT TIME ZONE 'UTC')") } else { time.to_owned() }
    }
}

impl Target {
    /// Conditions for the objects of a range.
    fn is_in(&self, range: &KeyRange) -> String {
        let mut conditions: Vec<String> =
            self.bucket.iter().map(|(column, bucket)| format!("o.{column} = {bucket}")).collect();
        let borders = [(">", &range.after), ("<=", &range.until)];
        conditions.extend(
            borders.into_iter().filter_map(|(operator, border)| {
                Some(format!("{} {operator} {}", self.order, literal(border.as_ref()?)))
            }),
        );
        conditions.push(format!("o.{} IS NOT NULL", self.key));
        conditions.join(" AND ")
    }

    /// Key, ETag and what else there is, in the order in which it is read.
    pub(super) fn columns(&self) -> Vec<(&'static str, String)> {
        let mut columns = vec![("key", format!("o.{}::text", self.key)), ("etag", format!("o.{}::text", self.etag))];
        columns.extend(self.size.as_ref().map(|size| ("size", format!("o.{size}::bigint"))));
        columns.extend(self.last_modified.as_ref().map(|time| ("last_modified", time.read())));
        columns.extend(self.content.as_ref().map(|content| ("content", format!("o.{content}"))));
        columns
    }

    pub(super) fn scan(&self, range: &KeyRange, limit: usize) -> String {
        let columns: Vec<_> = self.columns().into_iter().map(|(_, column)| column).collect();
        let (columns, name, order, is_in) = (columns.join(", "), &self.name, &self.order, self.is_in(range));
        format!("SELECT {columns} FROM {name} o WHERE {is_in} ORDER BY {order} LIMIT {limit}")
    }

    pub(super) fn sample(&self, range: &KeyRange, percent: f64) -> String {
        let (key, name, is_in) = (&self.key, &self.name, self.is_in(range));
        // The same each time, so that a run can be repeated.
        format!("SELECT o.{key}::text FROM {name} o TABLESAMPLE SYSTEM ({percent}) REPEATABLE (0) WHERE {is_in}")
    }

    /// The statement that copies the bucket's rows in order.
    pub(super) fn copied(&self, to: &str) -> String {
        let columns = self.columns().into_iter().map(|(name, column)| match name {
            "key" => format!("{column} COLLATE \"C\" AS key"),
            _ => format!("{column} AS {name}"),
        });
        let columns: Vec<_> = columns.collect();
        let (columns, name, is_in) = (columns.join(", "), &self.name, self.is_in(&KeyRange::all()));
        format!("CREATE TEMP TABLE {to} AS SELECT {columns} FROM {name} o WHERE {is_in} ORDER BY {}", self.order)
    }

    /// That a row is the one of a change.
    fn is_same(&self) -> String {
        let bucket = self.bucket.iter().map(|(column, bucket)| format!("o.{column} = {bucket} AND "));
        format!("{}{} = c.key", bucket.collect::<String>(), self.equal)
    }

    /// Columns that say what an object is, with what a change says.
    fn values(&self) -> Vec<(&str, String)> {
        let mut values = vec![(self.etag.as_str(), "c.etag".to_owned())];
        values.extend(self.size.as_deref().map(|size| (size, "c.size".to_owned())));
        values.extend(self.last_modified.as_ref().map(|time| (time.column.as_str(), time.written("c.last_modified"))));
        values.extend(self.content.as_deref().map(|content| (content, "c.content".to_owned())));
        values
    }

    /// What makes a row say what `values` do, and the condition that it does not so far.
    fn set(&self, values: &[(&str, String)]) -> (String, String) {
        let mut set: Vec<_> = values.iter().map(|(column, value)| format!("{column} = {value}")).collect();
        set.extend(self.seen_at.as_ref().map(|time| format!("{} = {}", time.column, time.written("now()"))));
        let differs: Vec<_> = values
            .iter()
            .map(|(column, value)| match *column == self.etag {
                // Some collations take for equal what differs.
                true => format!("o.{column} COLLATE \"C\" IS DISTINCT FROM {value}"),
                false => format!("o.{column} IS DISTINCT FROM {value}"),
            })
            .collect();
        (set.join(", "), format!("({})", differs.join(" OR ")))
    }

    /// A key of several rows that are to be changed.
    pub(super) fn find_twice(&self) -> String {
        format!(
            "SELECT c.key FROM {CHANGES} c JOIN {} o ON {} WHERE NOT c.removed GROUP BY c.key HAVING count(*) > 1 LIMIT 1",
            self.name,
            self.is_same()
        )
    }

    pub(super) fn delete(&self) -> Option<String> {
        (self.rows == RowPolicy::InsertAndDelete)
            .then(|| format!("DELETE FROM {} o USING {CHANGES} c WHERE c.removed AND {}", self.name, self.is_same()))
    }

    pub(super) fn update(&self) -> Option<String> {
        let (set, differs) = self.set(&self.values());
        (!self.inserts_first()).then(|| {
            let (name, is_same) = (&self.name, self.is_same());
            format!("UPDATE {name} o SET {set} FROM {CHANGES} c WHERE NOT c.removed AND {is_same} AND {differs}")
        })
    }

    pub(super) fn insert(&self) -> Option<String> {
        if self.rows == RowPolicy::UpdateOnly {
            return None;
        }
        let mut columns = vec![self.key.as_str()];
        let mut values = vec!["c.key".to_owned()];
        if let Some((column, bucket)) = &self.bucket {
            columns.push(column);
            values.push(bucket.clone());
        }
        for (column, value) in self.values() {
            columns.push(column);
            values.push(value);
        }
        if let Some(time) = &self.seen_at {
            columns.push(&time.column);
            values.push(time.written("now()"));
        }
        let (name, columns, values) = (&self.name, columns.join(", "), values.join(", "));
        let mut insert =
            format!("INSERT INTO {name} AS o ({columns}) SELECT {values} FROM {CHANGES} c WHERE NOT c.removed");
        if !self.inserts_first() {
            let is_same = self.is_same();
            insert += &format!(" AND NOT EXISTS (SELECT FROM {name} o WHERE {is_same})");
        }
        if let Some(arbiter) = &self.arbiter {
            let proposed: Vec<_> =
                self.values().into_iter().map(|(column, _)| (column, format!("excluded.{column}"))).collect();
            let (set, differs) = self.set(&proposed);
            // Others may have inserted the row in between.
            insert += &format!(" ON CONFLICT ({arbiter}) DO UPDATE SET {set} WHERE {differs}");
        }
        Some(insert)
    }

    /// In a table of somebody else's, the insertion of a row that is there could fail for want of values for his columns,
    /// and fire his triggers.
    fn inserts_first(&self) -> bool {
        self.is_ours && self.arbiter.is_some() && self.rows == RowPolicy::InsertAndDelete
    }
}
