//! What becomes of a record that cannot be read as it stands.

use std::io::Read;

use super::{Encoder, End};
use crate::choice::Choice;
use crate::reader::Reader;
use crate::repair::{NAMED, Repaired};
use crate::rows::{BadValue, RowEncoder};
use crate::{Event, Record, RecordError};

impl Encoder {
    /// Passes over the record that this error was met in, repairs it, leaves it out, or ends it all.
    #[cold]
    pub(super) fn take_bad(
        &self,
        error: RecordError,
        records: &Reader<impl Read>,
        choice: &mut Choice,
        rows: &mut RowEncoder,
    ) -> Result<(), End> {
        match records.bad_text(&error) {
            Some(record) => {
                if !choice.takes(&record) {
                    rows.pass_over(record.raw());
                    return Ok(());
                }
                if self.options.repair && self.push_repaired(&record, &error, rows)? {
                    return Ok(());
                }
            }
            // Which field is which cannot be told.
            None => choice.take(1),
        }
        match error.kind.of_one_record() {
            Some((sqlstate, message)) if self.options.is_tolerant() && error.is_reject() => {
                rows.leave_out(records.rejected(), error.column.as_deref(), sqlstate, &message);
                Ok(())
            }
            _ => Err(End::Record(error)),
        }
    }

    /// Whether it could be repaired. Its values may be bad yet.
    fn push_repaired(&self, record: &Record<'_>, error: &RecordError, rows: &mut RowEncoder) -> Result<bool, End> {
        let Some(repaired) = Repaired::new(record, self.options.max_record) else { return Ok(false) };
        match rows.push_repaired(&repaired.in_place_of(record), record.raw()) {
            Ok(count) if count <= NAMED => self.options.observer.event(&Event::Repaired {
                file: &self.file,
                table: &self.table,
                record: error.record,
                byte: error.offset,
                column: error.column.as_deref(),
            }),
            Ok(_) => {}
            Err(bad) if !self.options.is_tolerant() => {
                return Err(End::Value { bad, record: record.number(), offset: record.offset() });
            }
            Err(BadValue { column, sqlstate, message }) => {
                rows.leave_out(record.raw(), Some(&column), sqlstate, &message);
            }
        }
        Ok(true)
    }
}
