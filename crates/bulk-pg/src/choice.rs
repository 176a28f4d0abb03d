//! What of a file is loaded: columns, records, how many; and what stands in for columns that it lacks.

use std::collections::BTreeSet;

use crate::condition::{Test, quoted_column};
use crate::error::ANEW;
use crate::ledger::Load;
use crate::{Error, LoadOptions, Record};

/// The statements that make a ledger tell what was chosen, and count what was not, or was changed.
pub(crate) const COLUMNS: &str = "
    ALTER TABLE bulk.load ADD COLUMN IF NOT EXISTS choice text,
        ADD COLUMN IF NOT EXISTS filtered bigint NOT NULL DEFAULT 0,
        ADD COLUMN IF NOT EXISTS repaired bigint NOT NULL DEFAULT 0;
    ALTER TABLE bulk.chunk ADD COLUMN IF NOT EXISTS filtered bigint NOT NULL DEFAULT 0,
        ADD COLUMN IF NOT EXISTS repaired bigint NOT NULL DEFAULT 0;
    COMMENT ON COLUMN bulk.load.choice IS 'Which columns and records of the file were asked for, and what was given for columns that it lacks. NULL, of loads that did not tell the latter: all, whatever was given. Its records are those that were gone over: filtered ones did not meet the conditions, repaired ones are loaded with other bytes than the file has.';";

/// All of the file, and nothing beside it.
const ALL: &str = "all of it";

/// What is chosen, as one text that is equal for equal choices.
pub(crate) fn describe(options: &LoadOptions) -> String {
    let LoadOptions { columns, filter, limit, fill, .. } = options;
    let list = |texts: BTreeSet<String>, between: &str| texts.into_iter().collect::<Vec<_>>().join(between);
    let mut parts = Vec::new();
    if let Some(columns) = columns {
        let names = columns.iter().map(|name| quoted_column(name)).collect();
        parts.push(format!("columns {}", list(names, ", ")));
    }
    if !filter.is_empty() {
        let conditions = filter.iter().map(ToString::to_string).collect();
        parts.push(format!("where {}", list(conditions, " and ")));
    }
    if let Some(limit) = limit {
        parts.push(format!("limit {limit}"));
    }
    if !fill.is_empty() {
        let value = |(column, value): (&String, &String)| {
            format!("\"{}\"='{}'", column.replace('"', "\"\""), value.replace('\'', "''"))
        };
        parts.push(format!("fill {}", fill.iter().map(value).collect::<Vec<_>>().join(", ")));
    }
    if parts.is_empty() { ALL.to_owned() } else { parts.join("; ") }
}

/// Whether a load is of what the options choose. Ledgers did not always tell of fills: a load of which they say nothing is
/// of all of the file, whatever stood in for the columns that it lacks.
pub(crate) fn is_same(load: &Load, options: &LoadOptions) -> bool {
    let LoadOptions { columns, filter, limit, .. } = options;
    match &load.choice {
        None => columns.is_none() && filter.is_empty() && limit.is_none(),
        Some(choice) => *choice == describe(options),
    }
}

/// Says of a table with rows of a file that others were chosen than now.
pub(crate) fn not_the_same(load: &Load, options: &LoadOptions) -> String {
    format!(
        "holds {} another choice of {} (it was: {}; now: {}); {ANEW}",
        if load.finished.is_some() { "all rows of" } else { "a part of the rows of" },
        load.file.key,
        load.choice.as_deref().unwrap_or(ALL),
        describe(options)
    )
}

/// Picks the records of a file, in its order.
pub(crate) struct Choice {
    /// Each with the place of its column in the file.
    tests: Vec<(usize, Test)>,
    /// How many more records may be taken.
    left: u64,
}

impl Choice {
    /// What the options choose of a file with these columns.
    pub(crate) fn new(file: &str, header: &[String], options: &LoadOptions) -> Result<Self, Error> {
        let place = |column: &str| {
            header.iter().position(|name| name == column).ok_or_else(|| Error::Columns {
                file: file.to_owned(),
                what: format!(
                    "records are to be chosen by the column {column:?}, and its columns are {}",
                    list(header)
                ),
            })
        };
        let test = |condition: &crate::Condition| Ok((place(condition.column())?, condition.test().clone()));
        let tests = options.filter.iter().map(test).collect::<Result<_, Error>>()?;
        Ok(Self { tests, left: options.limit.unwrap_or(u64::MAX) })
    }

    /// Whether no more records are wanted.
    pub(crate) fn is_done(&self) -> bool {
        self.left == 0
    }

    /// Whether the next record is taken, and not passed over.
    #[inline(always)]
    pub(crate) fn takes(&mut self, record: &Record<'_>) -> bool {
        let takes = self.tests.is_empty() || self.meets(record);
        self.left -= u64::from(takes);
        takes
    }

    fn meets(&self, record: &Record<'_>) -> bool {
        self.tests.iter().all(|(place, test)| record.field(*place).is_some_and(|field| test.holds(&field)))
    }

    /// Counts records that are taken without a look at them: earlier runs took them, or nobody can tell their values.
    pub(crate) fn take(&mut self, records: u64) {
        self.left = self.left.saturating_sub(records);
    }
}

/// Columns of a file, for a message.
pub(crate) fn list(header: &[String]) -> String {
    header.iter().map(|name| quoted_column(name)).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_choices_have_equal_texts() {
        let described = |columns: Option<&[&str]>, filter: &[&str], limit| {
            let columns = columns.map(|columns| columns.iter().map(|name| (*name).to_owned()).collect());
            let filter = filter.iter().map(|text| text.parse().unwrap()).collect();
            let options = LoadOptions { columns, filter, limit, ..LoadOptions::default() };
            describe(&options)
        };
        assert_eq!(described(None, &[], None), "all of it");
        let text = "columns \"a b\", id; where id!=7 and note is null and x='1 and y=2'|3; limit 10";
        for columns in [&["id", "a b"][..], &["a b", "id", "a b"]] {
            for filter in [
                &["note is null", "id != 7", "x=3|'1 and y=2'"][..],
                &["id!=7", "x='1 and y=2'|3", "note IS NULL", "id!='7'"],
            ] {
                assert_eq!(described(Some(columns), filter, Some(10)), text);
            }
        }
        assert_eq!(described(None, &[], Some(0)), "limit 0");
    }

    #[test]
    fn fills_are_a_part_of_a_choice() {
        let mut options = LoadOptions::default();
        for (column, value) in [("price", "0"), ("a \"b\"", "it's, \"c\"='d'")] {
            options.fill.insert(column.to_owned(), value.to_owned());
        }
        let text = r#"fill "a ""b"""='it''s, "c"=''d''', "price"='0'"#;
        assert_eq!(describe(&options), text);
        options.limit = Some(7);
        assert_eq!(describe(&options), format!("limit 7; {text}"));
    }
}
