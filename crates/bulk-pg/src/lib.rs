//! .

mod buffer;
mod copy_text;
mod detect;
mod dialect;
mod ident;
mod record;
mod scan;
mod schema;
mod statement;

pub use copy_text::{CopyText, NoSuchField, Source};
pub use detect::{Attempt, Certainty, Undetected, Verdict, detect};
pub use dialect::{Dialect, InvalidDialect, Quoting, UnknownDialect};
pub use ident::{Ident, IdentError, QualifiedName, TableName, quote_literal};
pub use record::{
    Contradiction, Field, Grammar, Header, Position, Record, RecordError, RecordErrorKind, RecordOptions, Records,
};
pub use schema::{
    ColumnDefinition, Constraint, ConstraintKind, Definition, DefinitionKind, ForeignKey, IdentityKind, LeftOut,
    LeftOutReason, LoadOrder, Need, Phase, Plan, Schema, SchemaError, TableDefinition,
};
pub use statement::{Construct, SplitError, Statement, StatementKind, split_statements};
