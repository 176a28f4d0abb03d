//! Says of one SQL statement what it makes, in which phase it belongs, or why it is left out.
//!
//! This is a list of what is allowed, not of what is forbidden: a schema file comes from somewhere else, and what is
//! not known to make a part of a schema is not run. The statements are those of pg_dump 13 to 18.

use super::cursor::{Cursor, qualified, tokens_of};
use super::plan::LeftOutReason;
use super::table::{IdentityKind, TableDefinition};
use super::{Constraint, ConstraintKind, DefinitionKind, ForeignKey, Phase};
use crate::ident::{Ident, QualifiedName, TableName};

/// What becomes of a statement.
pub(super) enum Verdict {
    Keep(Box<Kept>),
    Leave(LeftOutReason),
}

/// A statement to run.
pub(super) struct Kept {
    pub(super) phase: Phase,
    pub(super) kind: DefinitionKind,
    pub(super) subject: Subject,
    /// What it says of a table's columns.
    pub(super) effect: Option<Effect>,
}

/// What a statement acts on or depends on, and does not make itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Subject {
    Nothing,
    Relation(TableName),
    Constraint(TableName, Ident),
    Trigger(TableName, Ident),
}

/// What a statement says of a table's columns.
pub(super) enum Effect {
    Create(TableDefinition),
    Column(TableName, Ident, Change),
    Attach { table: TableName, partition: TableName },
}

/// What a statement changes in a column.
pub(super) enum Change {
    Default(String),
    Identity(IdentityKind),
    NotNull,
}

impl Kept {
    fn new(phase: Phase, kind: DefinitionKind) -> Self {
        Self { phase, kind, subject: Subject::Nothing, effect: None }
    }

    fn on(self, table: TableName) -> Self {
        Self { subject: Subject::Relation(table), ..self }
    }

    fn with(self, effect: Effect) -> Self {
        Self { effect: Some(effect), ..self }
    }

    fn verdict(self) -> Option<Verdict> {
        Some(Verdict::Keep(Box::new(self)))
    }
}

/// A statement to run whose details do not matter.
fn other(phase: Phase) -> Option<Verdict> {
    Kept::new(phase, DefinitionKind::Other).verdict()
}

fn leave(reason: LeftOutReason) -> Option<Verdict> {
    Some(Verdict::Leave(reason))
}

/// Classifies an SQL statement, given with its semicolon.
pub(super) fn classify(sql: &str) -> Verdict {
    let tokens = tokens_of(sql);
    let mut cursor = Cursor::new(sql, &tokens);
    let verdict = if cursor.eat("CREATE") {
        create(&mut cursor)
    } else if cursor.eat("ALTER") {
        alter(&mut cursor, sql)
    } else if cursor.eat("COMMENT ON") {
        comment(&mut cursor)
    } else if cursor.eat("REFRESH MATERIALIZED VIEW") {
        cursor.eat("CONCURRENTLY");
        cursor.name().and_then(|view| {
            Kept::new(Phase::Triggers, DefinitionKind::Refresh { view: view.clone() }).on(view).verdict()
        })
    } else if cursor.eat("SELECT") {
        select(&mut cursor)
    } else {
        left_out_by_first_word(&mut cursor)
    };
    verdict.unwrap_or(Verdict::Leave(LeftOutReason::Unrecognised))
}

fn left_out_by_first_word(cursor: &mut Cursor<'_>) -> Option<Verdict> {
    leave(if cursor.eat("SET SESSION AUTHORIZATION") {
        LeftOutReason::Owner
    } else if cursor.sees_any(&["SET", "RESET"]) {
        LeftOutReason::Setting
    } else if cursor.sees_any(&["GRANT", "REVOKE"]) {
        LeftOutReason::Privileges
    } else if cursor.sees_any(&["COPY", "INSERT"]) {
        LeftOutReason::Data
    } else if cursor.sees("DROP") {
        LeftOutReason::Drop
    } else if cursor.sees_any(&["BEGIN", "START", "COMMIT", "END", "ROLLBACK", "SAVEPOINT"]) {
        LeftOutReason::Transaction
    } else if cursor.eat("SECURITY LABEL") {
        LeftOutReason::SecurityLabel
    } else {
        return None;
    })
}

fn select(cursor: &mut Cursor<'_>) -> Option<Verdict> {
    if cursor.eat_symbol("*") && !cursor.eat("FROM") {
        return None;
    }
    let function = cursor.dotted()?;
    leave(match function.last()?.as_str() {
        "set_config" => LeftOutReason::Setting,
        "setval" => LeftOutReason::SequenceValue,
        "lo_create" | "lo_open" | "lowrite" | "lo_close" | "lo_from_bytea" => LeftOutReason::Data,
        "pg_restore_relation_stats" | "pg_restore_attribute_stats" | "pg_restore_extended_stats" => {
            LeftOutReason::Statistics
        }
        _ => return None,
    })
}

fn create(cursor: &mut Cursor<'_>) -> Option<Verdict> {
    cursor.eat("OR REPLACE");
    let unique = cursor.eat("UNIQUE");
    if cursor.eat("INDEX") {
        return create_index(cursor, unique);
    }
    if unique {
        return None;
    }
    if cursor.eat("SCHEMA") {
        cursor.eat("IF NOT EXISTS");
        return Kept::new(Phase::PreData, DefinitionKind::Schema { name: cursor.ident()? }).verdict();
    }
    if cursor.eat("EXTENSION") {
        cursor.eat("IF NOT EXISTS");
        return Kept::new(Phase::PreData, DefinitionKind::Extension { name: cursor.ident()? }).verdict();
    }
    if cursor.eat("TABLE") || cursor.eat("UNLOGGED TABLE") {
        let table = TableDefinition::parse(cursor)?;
        let kept = Kept::new(Phase::PreData, DefinitionKind::Table { table: table.name.clone() });
        let subject = table.partition_of.clone().map_or(Subject::Nothing, Subject::Relation);
        return Kept { subject, ..kept }.with(Effect::Create(table)).verdict();
    }
    if cursor.eat("SEQUENCE") || cursor.eat("UNLOGGED SEQUENCE") {
        cursor.eat("IF NOT EXISTS");
        return Kept::new(Phase::PreData, DefinitionKind::Sequence { name: cursor.name()? }).verdict();
    }
    if cursor.eat("VIEW") || cursor.eat("RECURSIVE VIEW") {
        return Kept::new(Phase::PreData, DefinitionKind::View { name: cursor.name()? }).verdict();
    }
    if cursor.eat("MATERIALIZED VIEW") {
        cursor.eat("IF NOT EXISTS");
        let name = cursor.name()?;
        let phase = if cursor.seek("WITH NO DATA") { Phase::PreData } else { Phase::AfterIndexes };
        return Kept::new(phase, DefinitionKind::MaterializedView { name }).verdict();
    }
    if cursor.sees_any(&["FUNCTION", "PROCEDURE", "AGGREGATE"]) {
        cursor.skip();
        return Kept::new(Phase::PreData, DefinitionKind::Function { name: cursor.name()? }).verdict();
    }
    if cursor.eat("TRIGGER") || cursor.eat("CONSTRAINT TRIGGER") {
        let name = cursor.ident()?;
        let table = cursor.seek("ON").then(|| cursor.name())??;
        if !cursor.seek("EXECUTE FUNCTION") && !cursor.seek("EXECUTE PROCEDURE") {
            return None;
        }
        let function = function_name(cursor)?;
        let kind = DefinitionKind::Trigger { name: name.clone(), table: table.clone(), function };
        let subject = Subject::Trigger(table, name);
        return Kept { subject, ..Kept::new(Phase::Triggers, kind) }.verdict();
    }
    if cursor.eat("RULE") {
        cursor.ident()?;
        let table = cursor.seek("TO").then(|| cursor.name())??;
        return Kept::new(Phase::Triggers, DefinitionKind::Other).on(table).verdict();
    }
    if cursor.eat("POLICY") {
        cursor.ident()?;
        let table = cursor.eat("ON").then(|| cursor.name())??;
        return Kept::new(Phase::Triggers, DefinitionKind::Other).on(table).verdict();
    }
    if cursor.eat("STATISTICS") {
        return other(Phase::AfterIndexes);
    }
    if cursor.eat("PUBLICATION") {
        return other(Phase::Triggers);
    }
    create_by_first_word(cursor)
}

fn create_by_first_word(cursor: &mut Cursor<'_>) -> Option<Verdict> {
    if cursor.sees_any(&["TYPE", "DOMAIN", "CAST", "OPERATOR", "COLLATION", "CONVERSION", "TRANSFORM", "LANGUAGE"])
        || cursor.eat("TEXT SEARCH")
        || cursor.eat("ACCESS METHOD")
        || cursor.eat("DEFAULT CONVERSION")
        || cursor.eat("TRUSTED")
        || cursor.eat("PROCEDURAL LANGUAGE")
    {
        return other(Phase::PreData);
    }
    leave(beside_the_schema(cursor)?)
}

/// Why an object that is created or altered is left out, if it is no part of a schema.
fn beside_the_schema(cursor: &mut Cursor<'_>) -> Option<LeftOutReason> {
    if cursor.sees_any(&["FOREIGN", "SERVER"]) || cursor.eat("USER MAPPING") {
        Some(LeftOutReason::ForeignServer)
    } else if cursor.eat("EVENT TRIGGER") {
        Some(LeftOutReason::EventTrigger)
    } else if cursor.eat("SUBSCRIPTION") {
        Some(LeftOutReason::Subscription)
    } else if cursor.eat("DATABASE") {
        Some(LeftOutReason::Database)
    } else if cursor.sees_any(&["ROLE", "USER", "GROUP", "TABLESPACE"]) {
        Some(LeftOutReason::WholeServer)
    } else {
        None
    }
}

fn create_index(cursor: &mut Cursor<'_>, unique: bool) -> Option<Verdict> {
    cursor.eat("CONCURRENTLY");
    cursor.eat("IF NOT EXISTS");
    let name = if cursor.sees("ON") { None } else { Some(cursor.dotted()?) };
    if !cursor.eat("ON") {
        return None;
    }
    cursor.eat("ONLY");
    let table = cursor.name()?;
    let kind = match name {
        // An index is in the schema of its table.
        Some(mut parts) => {
            let name = QualifiedName { schema: table.schema.clone(), name: parts.pop()? };
            DefinitionKind::Index { name, table: table.clone(), unique }
        }
        None => DefinitionKind::Unnamed { table: table.clone() },
    };
    Kept::new(Phase::Indexes, kind).on(table).verdict()
}

/// The function of a trigger. pg_dump qualifies every name but those of `pg_catalog`, so these two, which every server
/// has, stand without a schema.
fn function_name(cursor: &mut Cursor<'_>) -> Option<QualifiedName> {
    let parts = cursor.dotted()?;
    match parts.as_slice() {
        [name] if is_built_in(name) => QualifiedName::new("pg_catalog", name.as_str()).ok(),
        _ => qualified(parts),
    }
}

fn is_built_in(name: &Ident) -> bool {
    let built_in = ["suppress_redundant_updates_trigger", "tsvector_update_trigger", "tsvector_update_trigger_column"];
    built_in.contains(&name.as_str())
}

fn alter(cursor: &mut Cursor<'_>, sql: &str) -> Option<Verdict> {
    if cursor.clone().seek("OWNER TO") {
        return leave(LeftOutReason::Owner);
    }
    if cursor.eat("DEFAULT PRIVILEGES") {
        return leave(LeftOutReason::Privileges);
    }
    if cursor.eat("TABLE") {
        cursor.eat("IF EXISTS");
        cursor.eat("ONLY");
        let table = cursor.name()?;
        return alter_table(cursor, table, sql);
    }
    if cursor.eat("SEQUENCE") {
        let sequence = cursor.name()?;
        if cursor.eat("OWNED BY") {
            let mut column = cursor.dotted()?;
            let name = column.pop()?;
            let table = qualified(column)?;
            let kind = DefinitionKind::SequenceOwner { sequence, table: table.clone(), column: name };
            return Kept::new(Phase::PreData, kind).on(table).verdict();
        }
        return if cursor.sees("RESTART") { leave(LeftOutReason::SequenceValue) } else { other(Phase::PreData) };
    }
    if cursor.sees_any(&["INDEX", "STATISTICS", "DOMAIN"]) {
        return other(Phase::AfterIndexes);
    }
    if cursor.eat("PUBLICATION") {
        return other(Phase::Triggers);
    }
    if cursor.sees_any(&["TYPE", "FUNCTION", "PROCEDURE", "AGGREGATE", "ROUTINE", "VIEW", "MATERIALIZED", "OPERATOR"])
        || cursor.eat("TEXT SEARCH")
    {
        return other(Phase::PreData);
    }
    if cursor.eat("LARGE OBJECT") {
        return leave(LeftOutReason::Data);
    }
    if cursor.sees("SYSTEM") {
        return leave(LeftOutReason::WholeServer);
    }
    leave(beside_the_schema(cursor)?)
}

fn alter_table(cursor: &mut Cursor<'_>, table: TableName, sql: &str) -> Option<Verdict> {
    if cursor.split_at_commas().len() > 1 {
        return None;
    }
    if cursor.eat("ADD") {
        return add_constraint(cursor, table, sql);
    }
    if cursor.eat("ALTER") {
        cursor.eat("COLUMN");
        return alter_column(cursor, table);
    }
    if cursor.eat("ATTACH PARTITION") {
        let partition = cursor.name()?;
        let kind = DefinitionKind::AttachPartition { table: table.clone(), partition: partition.clone() };
        let effect = Effect::Attach { table: table.clone(), partition };
        return Kept::new(Phase::PreData, kind).on(table).with(effect).verdict();
    }
    if cursor.eat("CLUSTER ON") || cursor.eat("REPLICA IDENTITY") || cursor.eat("SET WITHOUT CLUSTER") {
        return Kept::new(Phase::AfterIndexes, DefinitionKind::Other).on(table).verdict();
    }
    if cursor.eat("SET TABLESPACE") {
        return leave(LeftOutReason::WholeServer);
    }
    if cursor.eat("INHERIT") || cursor.eat("SET") || cursor.eat("OF") {
        return Kept::new(Phase::PreData, DefinitionKind::Other).on(table).verdict();
    }
    if cursor.eat("ENABLE ROW LEVEL SECURITY")
        || cursor.eat("FORCE ROW LEVEL SECURITY")
        || cursor.eat("NO FORCE ROW LEVEL SECURITY")
    {
        return Kept::new(Phase::Triggers, DefinitionKind::Other).on(table).verdict();
    }
    if cursor.eat("ENABLE") || cursor.eat("DISABLE") {
        let _ = cursor.eat("ALWAYS") || cursor.eat("REPLICA");
        if cursor.eat("RULE") {
            return Kept::new(Phase::Triggers, DefinitionKind::Other).on(table).verdict();
        }
        if !cursor.eat("TRIGGER") {
            return None;
        }
        // pg_dump --disable-triggers writes these around the rows.
        if cursor.sees_any(&["ALL", "USER"]) {
            return leave(LeftOutReason::Data);
        }
        let subject = Subject::Trigger(table, cursor.ident()?);
        return Kept { subject, ..Kept::new(Phase::Triggers, DefinitionKind::Other) }.verdict();
    }
    None
}

fn alter_column(cursor: &mut Cursor<'_>, table: TableName) -> Option<Verdict> {
    let column = cursor.ident()?;
    let (kind, change) = if cursor.eat("SET DEFAULT") {
        let kind = DefinitionKind::ColumnDefault { table: table.clone(), column: column.clone() };
        (kind, Some(Change::Default(cursor.rest_as_line())))
    } else if cursor.sees("ADD") {
        let identity = if cursor.eat("ADD GENERATED ALWAYS AS IDENTITY") {
            IdentityKind::Always
        } else if cursor.eat("ADD GENERATED BY DEFAULT AS IDENTITY") {
            IdentityKind::ByDefault
        } else {
            return None;
        };
        (DefinitionKind::Identity { table: table.clone(), column: column.clone() }, Some(Change::Identity(identity)))
    } else if cursor.eat("SET NOT NULL") {
        (DefinitionKind::Other, Some(Change::NotNull))
    } else if cursor.eat("SET STATISTICS")
        || cursor.eat("SET STORAGE")
        || cursor.eat("SET COMPRESSION")
        || cursor.eat("SET") && cursor.sees_symbol("(")
    {
        (DefinitionKind::Other, None)
    } else {
        return None;
    };
    let effect = change.map(|change| Effect::Column(table.clone(), column, change));
    Kept { effect, ..Kept::new(Phase::PreData, kind).on(table) }.verdict()
}

fn add_constraint(cursor: &mut Cursor<'_>, table: TableName, sql: &str) -> Option<Verdict> {
    let name = if cursor.eat("CONSTRAINT") { Some(cursor.ident()?) } else { None };
    if cursor.eat("FOREIGN KEY") {
        let Some(name) = name else {
            let kind = DefinitionKind::Unnamed { table: table.clone() };
            return Kept::new(Phase::ForeignKeys, kind).on(table).verdict();
        };
        let key = foreign_key(cursor, name, table.clone(), sql)?;
        return Kept::new(Phase::ForeignKeys, DefinitionKind::ForeignKey(key)).on(table).verdict();
    }
    let (kind, columns) = if cursor.eat("PRIMARY KEY") {
        (ConstraintKind::PrimaryKey, cursor.columns())
    } else if cursor.eat("UNIQUE") {
        let _ = cursor.eat("NULLS NOT DISTINCT") || cursor.eat("NULLS DISTINCT");
        (ConstraintKind::Unique, cursor.columns())
    } else if cursor.eat("EXCLUDE") {
        (ConstraintKind::Exclude, Some(Vec::new()))
    } else if cursor.eat("CHECK") {
        (ConstraintKind::Check, Some(Vec::new()))
    } else if cursor.eat("NOT NULL") {
        (ConstraintKind::NotNull, Some(vec![cursor.ident()?]))
    } else {
        return None;
    };
    // Without columns it is made of an index (USING INDEX), which has to be there.
    let phase = if columns.is_some() { Phase::Indexes } else { Phase::AfterIndexes };
    let columns = columns.unwrap_or_default();
    let kind = match name {
        Some(name) => DefinitionKind::Constraint(Constraint { name, table: table.clone(), kind, columns }),
        None => DefinitionKind::Unnamed { table: table.clone() },
    };
    Kept::new(phase, kind).on(table).verdict()
}

/// Reads a foreign key after these two words.
fn foreign_key(cursor: &mut Cursor<'_>, name: Ident, table: TableName, sql: &str) -> Option<ForeignKey> {
    let columns = cursor.columns()?;
    if !cursor.eat("REFERENCES") {
        return None;
    }
    let references = cursor.name()?;
    let ref_columns = cursor.columns().unwrap_or_default();
    let checked = !cursor.clone().seek("NOT VALID") && !cursor.clone().seek("NOT ENFORCED");
    let tokens = tokens_of(sql);
    let end = tokens.iter().rev().find(|token| !token.is_symbol(sql, ";"))?.end;
    let sql = sql.get(..end)?.to_owned();
    Some(ForeignKey { name, table, columns, references, ref_columns, checked, partitioned: false, sql })
}

fn comment(cursor: &mut Cursor<'_>) -> Option<Verdict> {
    let kept = |phase| Kept::new(phase, DefinitionKind::Comment);
    if cursor.eat("CONSTRAINT") {
        let name = cursor.ident()?;
        if cursor.eat("ON DOMAIN") {
            return kept(Phase::AfterIndexes).verdict();
        }
        let table = cursor.eat("ON").then(|| cursor.name())??;
        return Kept { subject: Subject::Constraint(table, name), ..kept(Phase::AfterIndexes) }.verdict();
    }
    if cursor.eat("TRIGGER") {
        let name = cursor.ident()?;
        let table = cursor.eat("ON").then(|| cursor.name())??;
        return Kept { subject: Subject::Trigger(table, name), ..kept(Phase::Triggers) }.verdict();
    }
    if cursor.eat("RULE") || cursor.eat("POLICY") {
        cursor.ident()?;
        let table = cursor.eat("ON").then(|| cursor.name())??;
        return kept(Phase::Triggers).on(table).verdict();
    }
    if cursor.eat("COLUMN") {
        let mut parts = cursor.dotted()?;
        parts.pop()?;
        return Kept { subject: Subject::Relation(qualified(parts)?), ..kept(Phase::PreData) }.verdict();
    }
    if cursor.eat("TABLE") || cursor.eat("VIEW") || cursor.eat("MATERIALIZED VIEW") {
        return kept(Phase::PreData).on(cursor.name()?).verdict();
    }
    if cursor.sees_any(&["INDEX", "STATISTICS"]) {
        return kept(Phase::AfterIndexes).verdict();
    }
    if cursor.eat("PUBLICATION") {
        return kept(Phase::Triggers).verdict();
    }
    if cursor.eat("SCHEMA") {
        return if cursor.ident()?.as_str() == "public" {
            leave(LeftOutReason::Owner)
        } else {
            kept(Phase::PreData).verdict()
        };
    }
    if cursor.sees_any(&["FOREIGN", "SERVER"]) {
        return leave(LeftOutReason::ForeignServer);
    }
    if cursor.eat("EXTENSION") {
        return leave(LeftOutReason::Owner);
    }
    if cursor.eat("EVENT TRIGGER") {
        return leave(LeftOutReason::EventTrigger);
    }
    if cursor.eat("SUBSCRIPTION") {
        return leave(LeftOutReason::Subscription);
    }
    if cursor.eat("DATABASE") {
        return leave(LeftOutReason::Database);
    }
    if cursor.sees_any(&["ROLE", "TABLESPACE"]) {
        return leave(LeftOutReason::WholeServer);
    }
    if cursor.eat("LARGE OBJECT") {
        return leave(LeftOutReason::Data);
    }
    kept(Phase::PreData).verdict()
}
