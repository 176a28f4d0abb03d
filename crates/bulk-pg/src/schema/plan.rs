//! The statements of a schema in the order in which a load runs them, and those that it does not run.

use std::collections::BTreeSet;
use std::fmt;

use super::{Definition, DefinitionKind, Phase, Schema};
use crate::ident::{Ident, QualifiedName, TableName};

/// A schema cut into the phases of a load.
///
/// Run the phases in the order of the fields. Within a phase the order is that of the file, which suits the statements'
/// dependencies; only [`indexes`](Self::indexes) may be run in any order and side by side.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Plan<'a> {
    /// Before the rows: schemas, extensions, types, functions, sequences, tables, views, column defaults, identities,
    /// partitions. `CREATE SCHEMA public` is among them where the file has it, though it mostly exists.
    pub pre_data: Vec<&'a Definition>,
    /// After the rows: indexes, and primary key, unique, exclusion and check constraints. None needs another. Each
    /// constraint locks its table, so those of one table wait for one another.
    pub indexes: Vec<&'a Definition>,
    /// What needs an index or a constraint: replica identities, clustering, the attaching of partitions' indexes,
    /// extended statistics, views that group by a primary key.
    pub after_indexes: Vec<&'a Definition>,
    /// Foreign keys: see [`ForeignKey::not_valid_sql`](super::ForeignKey::not_valid_sql).
    pub foreign_keys: Vec<&'a Definition>,
    /// What acts on rows, or shows them: triggers, rules, row level security, publications, and the filling of
    /// materialized views.
    pub triggers: Vec<&'a Definition>,
    /// What is not run, in the order of the file.
    pub left_out: Vec<LeftOut>,
}

impl<'a> Plan<'a> {
    pub(super) fn new(schema: &'a Schema) -> Self {
        let mut plan = Self { left_out: schema.left_out.clone(), ..Self::default() };
        for definition in &schema.definitions {
            plan.phase_mut(definition.phase).push(definition);
        }
        plan
    }

    /// The statements of a phase.
    pub fn phase(&self, phase: Phase) -> &[&'a Definition] {
        match phase {
            Phase::PreData => &self.pre_data,
            Phase::Indexes => &self.indexes,
            Phase::AfterIndexes => &self.after_indexes,
            Phase::ForeignKeys => &self.foreign_keys,
            Phase::Triggers => &self.triggers,
        }
    }

    fn phase_mut(&mut self, phase: Phase) -> &mut Vec<&'a Definition> {
        match phase {
            Phase::PreData => &mut self.pre_data,
            Phase::Indexes => &mut self.indexes,
            Phase::AfterIndexes => &mut self.after_indexes,
            Phase::ForeignKeys => &mut self.foreign_keys,
            Phase::Triggers => &mut self.triggers,
        }
    }

    /// Everything that the statements need and the file does not make, each thing once, in order. Ask the database which
    /// of it exists when the phase before the data has run: an extension may bring the functions.
    pub fn needs(&self) -> Vec<&'a Need> {
        let all = Phase::ALL.iter().flat_map(|phase| self.phase(*phase).iter().copied());
        all.flat_map(|definition| &definition.needs).collect::<BTreeSet<_>>().into_iter().collect()
    }

    /// Moves every statement that needs something for which `exists` says no to [`left_out`](Self::left_out), with
    /// [`LeftOutReason::Missing`]. It may be called again: what has been left out stays so.
    pub fn leave_out_unmet(&mut self, exists: impl Fn(&Need) -> bool) {
        for phase in Phase::ALL {
            let (kept, unmet): (Vec<_>, Vec<_>) =
                self.phase(phase).iter().partition(|definition| definition.needs.iter().all(&exists));
            *self.phase_mut(phase) = kept;
            self.left_out.extend(unmet.into_iter().map(|definition| LeftOut {
                line: definition.line,
                what: definition.summary(),
                reason: LeftOutReason::Missing(definition.needs.iter().filter(|need| !exists(need)).cloned().collect()),
            }));
        }
        self.left_out.sort_by_key(|left_out| left_out.line);
    }
}

/// Something that a statement needs and that the file does not make. It may exist on the server.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Need {
    /// A table or view.
    Table(TableName),
    /// A function, mostly of a trigger, so one without parameters.
    Function(QualifiedName),
    /// A trigger on a table.
    Trigger {
        /// The table.
        table: TableName,
        /// The trigger's name.
        name: Ident,
    },
}

impl fmt::Display for Need {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Table(name) => write!(f, "table {name:#}"),
            Self::Function(name) => write!(f, "function {name:#}()"),
            Self::Trigger { table, name } => write!(f, "trigger {name:#} on {table:#}"),
        }
    }
}

/// A statement of the file that a load does not run.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LeftOut {
    /// Its line in the file; the first line is 1.
    pub line: usize,
    /// The statement's beginning, in one line of about 100 characters at most: `ALTER TABLE public.t OWNER TO django`.
    /// String literals are shown as `'…'`, except in settings.
    pub what: String,
    /// Why.
    pub reason: LeftOutReason,
}

impl fmt::Display for LeftOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}: {}", self.line, self.what, self.reason)
    }
}

/// Why a statement is left out. `Display` says it in words.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LeftOutReason {
    /// A setting of the session that reads the dump: `SET`, `set_config`.
    Setting,
    /// A command for psql.
    MetaCommand,
    /// Creates, changes or describes a database.
    Database,
    /// Roles, tablespaces and parameters of the whole server.
    WholeServer,
    /// Gives to, or can only be done by, another owner: `OWNER TO`, comments on extensions and on the schema `public`.
    Owner,
    /// `GRANT`, `REVOKE`, `ALTER DEFAULT PRIVILEGES`.
    Privileges,
    /// `SECURITY LABEL`.
    SecurityLabel,
    /// Rows, large objects, and what pg_dump writes around them.
    Data,
    /// The position of a sequence.
    SequenceValue,
    /// The planner's statistics.
    Statistics,
    /// `BEGIN`, `COMMIT` and the like.
    Transaction,
    /// `DROP`, as `pg_dump --clean` writes it.
    Drop,
    /// Fires for the whole database, and needs a superuser.
    EventTrigger,
    /// Replicates from another server.
    Subscription,
    /// Foreign data wrappers, servers, user mappings and foreign tables.
    ForeignServer,
    /// Nothing that pg_dump writes for a schema, or several actions in one statement, or names that cannot be read.
    Unrecognised,
    /// Needs what neither the file nor the database has.
    Missing(Vec<Need>),
}

impl fmt::Display for LeftOutReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self {
            Self::Setting => "a setting of the dump's session; the load has its own",
            Self::MetaCommand => "a command for psql; the load uses the database that it was given",
            Self::Database => "concerns a whole database; the load uses the one that it was given",
            Self::WholeServer => "concerns the whole server",
            Self::Owner => "concerns an owner; everything belongs to the role that loads",
            Self::Privileges => "concerns privileges of roles that may not exist here",
            Self::SecurityLabel => "concerns a security provider that may not exist here",
            Self::Data => "rows; the load takes them from the data files",
            Self::SequenceValue => "the position of a sequence; the load sets it from the loaded rows",
            Self::Statistics => "statistics of other rows; the load gathers them from the loaded ones",
            Self::Transaction => "borders of transactions; the load has its own",
            Self::Drop => "drops what may hold data",
            Self::EventTrigger => "an event trigger fires for the whole database and needs a superuser",
            Self::Subscription => "a subscription would replicate from another server",
            Self::ForeignServer => "reaches for another server",
            Self::Unrecognised => "not a statement that pg_dump writes for a schema",
            Self::Missing(needs) => {
                for (index, need) in needs.iter().enumerate() {
                    write!(f, "{}{need}", if index == 0 { "" } else { ", " })?;
                }
                " is neither in the file nor in the database"
            }
        };
        f.write_str(text)
    }
}

impl Definition {
    /// Its beginning in one line, as in [`LeftOut::what`].
    pub fn summary(&self) -> String {
        super::summary(&self.sql)
    }

    /// The table that it creates, changes, or hangs something on, where that is known.
    pub fn table(&self) -> Option<&TableName> {
        match &self.kind {
            DefinitionKind::Table { table }
            | DefinitionKind::SequenceOwner { table, .. }
            | DefinitionKind::ColumnDefault { table, .. }
            | DefinitionKind::Identity { table, .. }
            | DefinitionKind::AttachPartition { table, .. }
            | DefinitionKind::Index { table, .. }
            | DefinitionKind::Unnamed { table }
            | DefinitionKind::Trigger { table, .. } => Some(table),
            DefinitionKind::Constraint(constraint) => Some(&constraint.table),
            DefinitionKind::ForeignKey(key) => Some(&key.table),
            _ => self.subject.relation(),
        }
    }
}
