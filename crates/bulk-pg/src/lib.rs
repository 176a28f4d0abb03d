//! .

mod buffer;
mod column;
mod copy_text;
mod detect;
mod dialect;
mod error;
mod event;
mod ident;
mod ledger;
mod load;
mod post_data;
mod pre_data;
mod record;
mod restart;
mod scan;
mod schema;
mod session;
mod statement;
mod verify;

pub use copy_text::{CopyText, NoSuchField, Source};
pub use detect::{Attempt, Certainty, Undetected, Verdict, detect};
pub use dialect::{Dialect, InvalidDialect, Quoting, UnknownDialect};
pub use error::{Cause, Error};
pub use event::{Event, Observer};
pub use ident::{Ident, IdentError, QualifiedName, TableName, quote_literal};
pub use ledger::{FileIdentity, prepare_ledger};
pub use load::{LoadOptions, Loaded, find_loaded, load};
pub use post_data::{Orphans, PostData, apply_post_data};
pub use pre_data::{PreData, Refused, apply_pre_data};
pub use record::{
    Contradiction, Field, Grammar, Header, Position, Record, RecordError, RecordErrorKind, RecordOptions, Records,
};
pub use restart::restart;
pub use schema::{
    ColumnDefinition, Constraint, ConstraintKind, Definition, DefinitionKind, ForeignKey, IdentityKind, LeftOut,
    LeftOutReason, LoadOrder, Need, Phase, Plan, Schema, SchemaError, TableDefinition,
};
pub use session::Session;
pub use statement::{Construct, SplitError, Statement, StatementKind, split_statements};
pub use verify::{Count, count_rows};
