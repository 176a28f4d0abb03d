//! Reads the schema file that comes with a data set, and cuts it into the phases of a load.

use std::collections::{BTreeMap, BTreeSet};

use crate::ident::{Ident, QualifiedName, TableName};
use crate::statement::{SplitError, Statement, StatementKind, split_statements};

mod classify;
mod cursor;
mod plan;
mod table;

pub use plan::{LeftOut, LeftOutReason, Need, Plan};
pub use table::{ColumnDefinition, IdentityKind, TableDefinition};

use classify::{Change, Effect, Subject, Verdict};
use cursor::Cursor;

/// A schema: what the output of `pg_dump --schema-only` (13 to 18) makes, with or without `--create`.
///
/// Only what makes a part of a schema is taken; everything else is [left out](Plan::left_out), with its reason. The
/// statements are meant for a session with `search_path` set to `public`, `check_function_bodies` to `off`,
/// `standard_conforming_strings` to `on` and `client_encoding` to `UTF8`. pg_dump sets the first to nothing and
/// qualifies every name, which means the same; a name without a schema is in `public`.
///
/// # Example
/// ```
/// let schema = bulk_pg::Schema::parse(
///     "CREATE TABLE public.a (id integer NOT NULL);
///      ALTER TABLE public.a OWNER TO someone;
///      ALTER TABLE ONLY public.a ADD CONSTRAINT a_pkey PRIMARY KEY (id);",
/// )?;
/// let plan = schema.plan();
/// assert_eq!(plan.pre_data[0].sql, "CREATE TABLE public.a (id integer NOT NULL);");
/// assert_eq!(plan.indexes[0].line, 3);
/// assert_eq!(plan.left_out[0].what, "ALTER TABLE public.a OWNER TO someone");
/// # Ok::<(), bulk_pg::SchemaError>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Schema {
    definitions: Vec<Definition>,
    tables: Vec<TableDefinition>,
    /// Where a table is in `tables`.
    places: BTreeMap<TableName, usize>,
    left_out: Vec<LeftOut>,
}

/// A statement that makes a part of the schema.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Definition {
    /// Its line in the file; the first line is 1.
    pub line: usize,
    /// The statement as the file has it, with its semicolon.
    pub sql: String,
    /// What it makes.
    pub kind: DefinitionKind,
    /// When to run it.
    pub phase: Phase,
    /// What has to exist for it, and is not made by the file.
    pub needs: Vec<Need>,
    subject: Subject,
}

/// When a statement is to be run. The order of the variants is that of a load; the rows come after `PreData`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Phase {
    /// See [`Plan::pre_data`].
    PreData,
    /// See [`Plan::indexes`].
    Indexes,
    /// See [`Plan::after_indexes`].
    AfterIndexes,
    /// See [`Plan::foreign_keys`].
    ForeignKeys,
    /// See [`Plan::triggers`].
    Triggers,
}

impl Phase {
    /// All phases, in their order.
    pub const ALL: [Self; 5] = [Self::PreData, Self::Indexes, Self::AfterIndexes, Self::ForeignKeys, Self::Triggers];
}

/// What a [`Definition`] makes.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
#[expect(missing_docs, reason = "the fields are the names that the statement holds")]
pub enum DefinitionKind {
    /// `CREATE SCHEMA`.
    Schema { name: Ident },
    /// `CREATE EXTENSION`.
    Extension { name: Ident },
    /// `CREATE FUNCTION`, `PROCEDURE` or `AGGREGATE`.
    Function { name: QualifiedName },
    /// `CREATE SEQUENCE`.
    Sequence { name: QualifiedName },
    /// `CREATE TABLE`; see [`Schema::table`].
    Table { table: TableName },
    /// `CREATE VIEW`.
    View { name: QualifiedName },
    /// `CREATE MATERIALIZED VIEW`.
    MaterializedView { name: QualifiedName },
    /// `ALTER SEQUENCE … OWNED BY` a column.
    SequenceOwner { sequence: QualifiedName, table: TableName, column: Ident },
    /// `ALTER COLUMN … SET DEFAULT`.
    ColumnDefault { table: TableName, column: Ident },
    /// `ALTER COLUMN … ADD GENERATED … AS IDENTITY`.
    Identity { table: TableName, column: Ident },
    /// `ALTER TABLE … ATTACH PARTITION`.
    AttachPartition { table: TableName, partition: TableName },
    /// `CREATE INDEX` with a name.
    Index { name: QualifiedName, table: TableName, unique: bool },
    /// `ADD CONSTRAINT`, all but foreign keys.
    Constraint(Constraint),
    /// `ADD CONSTRAINT … FOREIGN KEY`.
    ForeignKey(ForeignKey),
    /// `CREATE TRIGGER`.
    Trigger { name: Ident, table: TableName, function: QualifiedName },
    /// `REFRESH MATERIALIZED VIEW`.
    Refresh { view: QualifiedName },
    /// `COMMENT ON` something.
    Comment,
    /// An index or constraint, foreign keys included, whose name is left to the server: of it nobody can tell whether it
    /// is there already, so [`apply_post_data`](crate::apply_post_data) refuses it. pg_dump names all.
    Unnamed { table: TableName },
    /// Anything else: types, domains, operators, policies, rules, statistics, storage of columns…
    Other,
}

/// A constraint that a statement of its own adds to a table.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Constraint {
    /// Its name.
    pub name: Ident,
    /// The table that gets it.
    pub table: TableName,
    /// Its kind.
    pub kind: ConstraintKind,
    /// The columns of a primary key, unique or not-null constraint, in its order; empty for the other kinds, and for
    /// one made of an index (`USING INDEX`).
    pub columns: Vec<Ident>,
}

/// The kinds of [`Constraint`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ConstraintKind {
    /// `PRIMARY KEY`.
    PrimaryKey,
    /// `UNIQUE`.
    Unique,
    /// `EXCLUDE`.
    Exclude,
    /// `CHECK`. pg_dump writes checks within CREATE TABLE, and by themselves only those that are not valid.
    Check,
    /// `NOT NULL`, from PostgreSQL 18 on.
    NotNull,
}

/// A foreign key that a statement of its own adds to a table.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ForeignKey {
    /// Its name.
    pub name: Ident,
    /// The table that holds it: the child.
    pub table: TableName,
    /// Its columns, in the order of the key.
    pub columns: Vec<Ident>,
    /// The table that it refers to: the parent.
    pub references: TableName,
    /// The parent's columns, in the order of the key; empty where the file names none, which means its primary key.
    pub ref_columns: Vec<Ident>,
    /// Whether the file wants existing rows to be checked: false for `NOT VALID` and `NOT ENFORCED` keys.
    pub checked: bool,
    /// Whether the file makes the child a partitioned table.
    pub partitioned: bool,
    /// The statement without its semicolon.
    sql: String,
}

impl ForeignKey {
    /// A key that the database has, and that `sql` makes.
    pub(crate) fn existing(
        name: Ident,
        table: TableName,
        columns: Vec<Ident>,
        references: TableName,
        ref_columns: Vec<Ident>,
        sql: String,
    ) -> Self {
        Self { name, table, columns, references, ref_columns, checked: true, partitioned: false, sql }
    }

    /// The statement that adds the key without checking the rows that are there: the file's own, with NOT VALID at its
    /// end. None for a partitioned child, whose keys PostgreSQL before 18 cannot add in this way.
    pub fn not_valid_sql(&self) -> Option<String> {
        match (self.partitioned, self.checked) {
            (true, _) => None,
            (false, true) => Some(format!("{} NOT VALID;", self.sql)),
            (false, false) => Some(format!("{};", self.sql)),
        }
    }

    /// The statement that checks the rows of a key added by [`not_valid_sql`](Self::not_valid_sql). It takes no lock
    /// that stops reading or writing. None where there is nothing to check: the file's key is `NOT VALID` or `NOT
    /// ENFORCED` itself, or its child is partitioned.
    pub fn validate_sql(&self) -> Option<String> {
        (self.checked && !self.partitioned)
            .then(|| format!("ALTER TABLE ONLY {} VALIDATE CONSTRAINT {};", self.table, self.name))
    }
}

/// A schema file that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SchemaError {
    /// The file cannot be cut into statements.
    #[error("the schema file cannot be cut into statements")]
    Split(#[from] SplitError),
    /// The file begins as pg_dump's output does, and lacks its last lines.
    #[error("the schema file is cut off: it lacks the line \"{DUMP_END}\"")]
    CutOff,
    /// A setting without which the statements that follow would mean something else: another `search_path` than
    /// `public`, or `standard_conforming_strings` off.
    #[error("line {line}: a schema file with this setting cannot be read: {what}")]
    Setting {
        /// The line of the setting.
        line: usize,
        /// The setting.
        what: String,
    },
    /// The file connects to a further database after it has defined something, as pg_dumpall's does.
    #[error("line {line}: the schema file holds several databases")]
    SeveralDatabases {
        /// The line of the second `\connect`.
        line: usize,
    },
}

/// How much of a statement its summary shows.
const SUMMARY_CHARS: usize = 100;

const DUMP_START: &str = "-- PostgreSQL database dump";
const DUMP_END: &str = "-- PostgreSQL database dump complete";

impl Schema {
    /// Reads a schema file.
    ///
    /// # Errors
    /// See [`SchemaError`]. Statements that are not understood are no error: they are left out and listed.
    pub fn parse(text: &str) -> Result<Self, SchemaError> {
        let has_line = |wanted| text.lines().any(|line| line.trim_end() == wanted);
        if has_line(DUMP_START) && !has_line(DUMP_END) {
            return Err(SchemaError::CutOff);
        }
        let mut schema = Self::default();
        for statement in split_statements(text)? {
            schema.add(&statement)?;
        }
        schema.settle_phases();
        schema.find_needs();
        Ok(schema)
    }

    fn add(&mut self, statement: &Statement<'_>) -> Result<(), SchemaError> {
        let line = statement.line;
        let mut leave = |what, reason| self.left_out.push(LeftOut { line, what, reason });
        match statement.kind {
            // Its COPY statement is listed.
            StatementKind::CopyData => {}
            StatementKind::Meta => {
                if is_connect(statement.text) && !self.definitions.is_empty() {
                    return Err(SchemaError::SeveralDatabases { line });
                }
                leave(statement.text.chars().take(SUMMARY_CHARS).collect(), LeftOutReason::MetaCommand);
            }
            StatementKind::Sql => match classify::classify(statement.text) {
                Verdict::Leave(reason) => {
                    let what = summary(statement.text);
                    if reason == LeftOutReason::Setting && changes_meaning(statement.text) {
                        return Err(SchemaError::Setting { line, what });
                    }
                    leave(what, reason);
                }
                Verdict::Keep(kept) => {
                    if let Some(effect) = kept.effect {
                        self.apply(effect);
                    }
                    let (kind, phase, subject) = (kept.kind, kept.phase, kept.subject);
                    let sql = statement.text.to_owned();
                    self.definitions.push(Definition { line, sql, kind, phase, needs: Vec::new(), subject });
                }
            },
        }
        Ok(())
    }

    fn apply(&mut self, effect: Effect) {
        match effect {
            Effect::Create(table) => {
                self.places.insert(table.name.clone(), self.tables.len());
                self.tables.push(table);
            }
            Effect::Column(table, name, change) => {
                if let Some(column) = self.table_mut(&table).and_then(|table| table.column_mut(&name)) {
                    match change {
                        Change::Default(expression) => column.default = Some(expression),
                        Change::Identity(identity) => column.identity = Some(identity),
                        Change::NotNull => column.not_null = true,
                    }
                }
            }
            Effect::Attach { table, partition } => {
                if let Some(partition) = self.table_mut(&partition) {
                    partition.partition_of = Some(table);
                }
            }
        }
    }

    fn table_mut(&mut self, name: &TableName) -> Option<&mut TableDefinition> {
        self.places.get(name).and_then(|place| self.tables.get_mut(*place))
    }

    /// Moves statements to a later phase where another statement of the file asks for it.
    fn settle_phases(&mut self) {
        // pg_dump puts a view, routine or materialized view that needs a primary key after the rows: behind the last
        // table or sequence and something that itself belongs there.
        let makes_relation =
            |d: &Definition| matches!(d.kind, DefinitionKind::Table { .. } | DefinitionKind::Sequence { .. });
        let last_relation = self.definitions.iter().rposition(makes_relation).map_or(0, |at| at + 1);
        let is_late = |d: &Definition| d.phase != Phase::PreData;
        let post_data = self.definitions.iter().skip(last_relation).position(is_late).map(|at| at + last_relation);
        let mut late_relations = BTreeSet::new();
        for (at, definition) in self.definitions.iter_mut().enumerate() {
            let moves = matches!(
                definition.kind,
                DefinitionKind::View { .. }
                    | DefinitionKind::MaterializedView { .. }
                    | DefinitionKind::Function { .. }
                    | DefinitionKind::Comment
            );
            if moves && definition.phase == Phase::PreData && post_data.is_some_and(|border| at > border) {
                definition.phase = Phase::AfterIndexes;
            }
            match &definition.kind {
                DefinitionKind::View { name } | DefinitionKind::MaterializedView { name }
                    if definition.phase == Phase::AfterIndexes =>
                {
                    late_relations.insert(name.clone());
                }
                DefinitionKind::Index { table, .. } if late_relations.contains(table) => {
                    definition.phase = Phase::AfterIndexes
                }
                _ => {}
            }
        }
        let foreign_keys: BTreeSet<(TableName, Ident)> =
            self.foreign_keys().map(|key| (key.table.clone(), key.name.clone())).collect();
        let partitioned: BTreeSet<TableName> =
            self.tables.iter().filter(|table| table.partitioned).map(|table| table.name.clone()).collect();
        for definition in &mut self.definitions {
            match (&mut definition.kind, &definition.subject) {
                (DefinitionKind::Comment, Subject::Constraint(table, name))
                    if foreign_keys.contains(&(table.clone(), name.clone())) =>
                {
                    definition.phase = Phase::Triggers;
                }
                (DefinitionKind::ForeignKey(key), _) => key.partitioned = partitioned.contains(&key.table),
                _ => {}
            }
        }
    }

    /// Notes for each statement what it needs beyond the file.
    fn find_needs(&mut self) {
        let mut relations = BTreeSet::new();
        let mut functions = BTreeSet::new();
        for definition in &self.definitions {
            match &definition.kind {
                DefinitionKind::Table { table: name }
                | DefinitionKind::View { name }
                | DefinitionKind::MaterializedView { name } => {
                    relations.insert(name.clone());
                }
                DefinitionKind::Function { name } => {
                    functions.insert(name.clone());
                }
                _ => {}
            }
        }
        let missing_table = |name: &TableName| (!relations.contains(name)).then(|| Need::Table(name.clone()));
        let missing_function = |name: &QualifiedName| {
            let built_in = name.schema.as_str() == "pg_catalog";
            (!built_in && !functions.contains(name)).then(|| Need::Function(name.clone()))
        };
        let mut of_triggers = BTreeMap::new();
        let mut of_foreign_keys = BTreeMap::new();
        for definition in &mut self.definitions {
            let mut needs: Vec<Need> = definition.subject.relation().and_then(missing_table).into_iter().collect();
            match &definition.kind {
                DefinitionKind::Table { table } => {
                    let found = self.places.get(table).and_then(|place| self.tables.get(*place));
                    needs.extend(found.into_iter().flat_map(|t| &t.references).filter_map(missing_table));
                }
                DefinitionKind::AttachPartition { partition, .. } => needs.extend(missing_table(partition)),
                DefinitionKind::Trigger { name, table, function } => {
                    needs.extend(missing_function(function));
                    of_triggers.insert((table.clone(), name.clone()), needs.clone());
                }
                DefinitionKind::ForeignKey(key) => {
                    needs.extend(missing_table(&key.references));
                    of_foreign_keys.insert((key.table.clone(), key.name.clone()), needs.clone());
                }
                _ => {}
            }
            definition.needs = needs;
        }
        // What is said of a trigger or a foreign key needs what that needs.
        for definition in &mut self.definitions {
            match (&definition.kind, &definition.subject) {
                (DefinitionKind::Trigger { .. }, _) => {}
                (_, Subject::Trigger(table, name)) => match of_triggers.get(&(table.clone(), name.clone())) {
                    Some(needs) => definition.needs.clone_from(needs),
                    None => definition.needs.push(Need::Trigger { table: table.clone(), name: name.clone() }),
                },
                (_, Subject::Constraint(table, name)) => {
                    if let Some(needs) = of_foreign_keys.get(&(table.clone(), name.clone())) {
                        definition.needs.clone_from(needs);
                    }
                }
                _ => {}
            }
        }
        for definition in &mut self.definitions {
            definition.needs.sort();
            definition.needs.dedup();
        }
    }

    /// The statements that make the schema, in the order of the file.
    pub fn definitions(&self) -> &[Definition] {
        &self.definitions
    }

    /// The tables that the file makes, in its order.
    pub fn tables(&self) -> impl Iterator<Item = &TableDefinition> {
        self.tables.iter()
    }

    /// The table of this name, if the file makes it.
    pub fn table(&self, name: &TableName) -> Option<&TableDefinition> {
        self.places.get(name).and_then(|place| self.tables.get(*place))
    }

    /// The foreign keys that statements of their own add, in the order of the file.
    pub fn foreign_keys(&self) -> impl Iterator<Item = &ForeignKey> {
        self.definitions.iter().filter_map(|definition| match &definition.kind {
            DefinitionKind::ForeignKey(key) => Some(key),
            _ => None,
        })
    }

    /// The tables that some statement needs and the file does not make, in the order of their names.
    pub fn missing_tables(&self) -> Vec<&TableName> {
        let missing = self.definitions.iter().flat_map(|definition| &definition.needs).filter_map(|need| match need {
            Need::Table(name) => Some(name),
            _ => None,
        });
        missing.collect::<BTreeSet<_>>().into_iter().collect()
    }

    /// The functions that triggers run and the file does not make, in the order of their names. An extension may bring
    /// them.
    pub fn missing_functions(&self) -> Vec<&QualifiedName> {
        let missing = self.definitions.iter().flat_map(|definition| &definition.needs).filter_map(|need| match need {
            Need::Function(name) => Some(name),
            _ => None,
        });
        missing.collect::<BTreeSet<_>>().into_iter().collect()
    }

    /// The statements by phases, and what is left out.
    pub fn plan(&self) -> Plan<'_> {
        Plan::new(self)
    }
}

impl Subject {
    fn relation(&self) -> Option<&TableName> {
        match self {
            Self::Nothing => None,
            Self::Relation(table) | Self::Constraint(table, _) | Self::Trigger(table, _) => Some(table),
        }
    }
}

/// Whether a command of psql changes the database: `\connect` or `\c`.
fn is_connect(command: &str) -> bool {
    matches!(command.split_whitespace().next(), Some("\\connect" | "\\c"))
}

/// Whether a setting gives the statements that follow another meaning than this module reads in them.
fn changes_meaning(sql: &str) -> bool {
    let tokens = cursor::tokens_of(sql);
    let mut cursor = Cursor::new(sql, &tokens);
    if cursor.eat("SELECT") {
        cursor.dotted();
        let arguments = cursor.group().map(|arguments| arguments.split_at_commas());
        let values: Vec<_> = arguments.into_iter().flatten().map(|argument| unquoted(&argument)).collect();
        return match values.as_slice() {
            [name, value, ..] => is_foreign_setting(name, value.split(',').next().unwrap_or_default()),
            _ => false,
        };
    }
    cursor.skip();
    let _ = cursor.eat("SESSION") || cursor.eat("LOCAL");
    let Some(name) = cursor.ident() else {
        return false;
    };
    let assigns = cursor.eat("TO") || cursor.eat_symbol("=");
    let value = cursor.split_at_commas().first().map(unquoted).unwrap_or_default();
    assigns && is_foreign_setting(name.as_str(), &value)
}

fn unquoted(value: &Cursor<'_>) -> String {
    value.rest_as_line().trim_matches(['\'', '"', ' ']).to_ascii_lowercase()
}

/// Of a `search_path`, `value` is the first schema.
fn is_foreign_setting(name: &str, value: &str) -> bool {
    let value = value.trim_matches(['"', ' ']);
    match name {
        "search_path" => !["", "public", "pg_catalog", "$user", "default"].contains(&value),
        "standard_conforming_strings" => ["off", "false", "no", "0"].contains(&value),
        _ => false,
    }
}

/// The beginning of a statement in one line.
fn summary(sql: &str) -> String {
    let tokens = cursor::tokens_of(sql);
    Cursor::new(sql, &tokens).summary()
}
