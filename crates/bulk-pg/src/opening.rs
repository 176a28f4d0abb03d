//! What a file of each format is: its fields, how its records are written, and what rows they become.

use std::collections::HashMap;

use crate::column::{Mapping, Target};
use crate::json_column::JsonShape;
use crate::ndjson::{self, JsonFields};
use crate::reader::Layout;
use crate::rows::RowMaker;
use crate::tuples::{CopyTuples, header_len};
use crate::{Condition, CopyText, Dialect, Drift, Error, InputFormat, LoadOptions, RecordError, TableName};

/// What tells how a file is to be read, beside its first bytes.
pub(crate) struct Opening<'a> {
    pub(crate) file: &'a str,
    pub(crate) table: &'a TableName,
    pub(crate) target: &'a Target,
    pub(crate) options: &'a LoadOptions,
}

impl Opening<'_> {
    /// COPY's text format.
    pub(crate) fn text(&self) -> Layout {
        Layout::text(self.names())
    }

    /// COPY's binary format.
    pub(crate) fn binary(&self, sample: &[u8]) -> Result<Layout, Error> {
        let end = header_len(sample).map_err(|fault| Error::Record {
            file: self.file.to_owned(),
            source: RecordError {
                record: 0,
                start: 0,
                offset: fault.at as u64,
                column: None,
                dialect: Dialect::CSV,
                format: InputFormat::CopyBinary,
                kind: fault.kind,
            },
        })?;
        Ok(Layout::binary(self.names(), end as u64))
    }

    /// The names of the fields of a file that does not say them.
    fn names(&self) -> Vec<String> {
        let of_table = || {
            let columns = self.target.columns.iter().filter(|column| !column.generated);
            columns.map(|column| column.name.clone()).collect()
        };
        self.options.header.clone().unwrap_or_else(of_table)
    }

    /// NDJSON. Of the keys in the sample, and of those that the caller names, the table's columns are fields; so are keys
    /// that conditions ask for, columns that must have a value, and the one that takes the rest.
    pub(crate) fn ndjson(
        &self,
        sample: &[u8],
        is_complete: bool,
        shapes: &HashMap<String, JsonShape>,
    ) -> Result<Layout, Error> {
        let end = match ndjson::start(sample) {
            Some(start) => start,
            None if is_complete => sample.len(),
            None => return Err(self.misfit("its first MiB is white space: it is no NDJSON".to_owned())),
        };
        let rest = self.options.rest.as_ref();
        if let Some(rest) = rest {
            self.check_rest(rest, shapes)?;
        }
        let mut names = ndjson::keys(&sample[end..]);
        let LoadOptions { header, columns: chosen, filter, .. } = self.options;
        let tested = || filter.iter().map(Condition::column);
        let asked = header.iter().chain(chosen).flatten().map(String::as_str).chain(tested());
        for name in asked {
            if !names.iter().any(|known| known == name) {
                names.push(name.to_owned());
            }
        }
        let find = |name: &str| self.target.columns.iter().find(|column| column.name == name);
        if let Some(name) = tested().find(|name| rest.is_some_and(|rest| rest == name || find(name).is_none())) {
            return Err(self.misfit(format!("records are to be chosen by {name}, which is a key of the rest of them")));
        }
        names.retain(|name| rest.is_none() || find(name).is_some() && Some(name) != rest);
        let is_wanted = |name: &String| !names.contains(name) && !self.options.fill.contains_key(name);
        let columns = self.target.columns.iter().filter(|column| column.required && !column.generated);
        let required: Vec<_> = columns.map(|column| &column.name).filter(|name| is_wanted(name)).cloned().collect();
        names.extend(required.into_iter().filter(|name| Some(name) != rest));
        names.extend(rest.cloned());

        let others = if rest.is_some() { ndjson::Target::Rest } else { ndjson::Target::Ignored };
        let mut keys = HashMap::new();
        let is_left = |name: &String| chosen.as_ref().is_some_and(|chosen| !chosen.contains(name));
        for column in &self.target.columns {
            let is_ignored = column.generated || is_left(&column.name);
            let target = if is_ignored { ndjson::Target::Ignored } else { ndjson::Target::Unlisted };
            keys.insert(column.name.clone().into_bytes(), target);
        }
        let mut fields = Vec::new();
        for (index, name) in names.iter().enumerate() {
            let is_rest = Some(name) == rest;
            let target = match find(name) {
                _ if is_rest => ndjson::Target::Rest,
                Some(column) if !column.generated => ndjson::Target::Field(index),
                _ if tested().any(|tested| tested == name) => ndjson::Target::Field(index),
                _ => ndjson::Target::Ignored,
            };
            keys.insert(name.clone().into_bytes(), target);
            fields.push((!is_rest).then(|| shapes.get(name).copied().unwrap_or(JsonShape::Text)));
        }
        Ok(Layout::ndjson(names, JsonFields { shapes: fields, keys, others }, end as u64))
    }

    fn check_rest(&self, rest: &str, shapes: &HashMap<String, JsonShape>) -> Result<(), Error> {
        let table = self.table;
        match self.target.columns.iter().find(|column| column.name == rest) {
            None => Err(self.misfit(format!("{table:#} has no column {rest} for the rest of the keys"))),
            Some(column) if column.generated || shapes.get(rest) != Some(&JsonShape::Json) => {
                let what = if column.generated { "generated by the server" } else { &column.type_name };
                Err(self.misfit(format!(
                    "the column {rest} of {table:#} is {what}: the rest of the keys takes one of type json or jsonb"
                )))
            }
            Some(_) => Ok(()),
        }
    }

    /// How the fields meet the table's columns.
    pub(crate) fn mapping(&self, layout: &Layout) -> Result<Mapping, Error> {
        let Self { file, table, target, options } = self;
        let mut mapping = Mapping::new(file, table, layout.header.names(), target, options)?;
        if options.input_format == InputFormat::Ndjson {
            // Keys have no order.
            mapping.drift.retain(|drift| *drift != Drift::Order);
        }
        Ok(mapping)
    }

    /// What makes a row of any record.
    pub(crate) fn maker(&self, mapping: &Mapping, layout: &Layout) -> Result<RowMaker, Error> {
        let fields = layout.header.names().len();
        if self.options.input_format != InputFormat::CopyBinary {
            let text = CopyText::new(&mapping.sources, fields).map_err(|error| self.misfit(error.to_string()))?;
            return Ok(RowMaker::Text(text));
        }
        let column = |index: usize| {
            let name = mapping.names.get(index);
            self.target.columns.iter().find(|column| Some(&column.name) == name)
        };
        let binary_type = |index| column(index).and_then(|column| column.binary_type);
        let tuples = CopyTuples::new(&mapping.sources, fields, binary_type).map_err(|error| {
            let name = mapping.names.get(error.column).map_or("", |name| name);
            self.misfit(format!("the value for its column {name} cannot be added to binary rows: {}", error.why))
        })?;
        Ok(RowMaker::Tuples(tuples))
    }

    fn misfit(&self, what: String) -> Error {
        Error::Columns { file: self.file.to_owned(), what }
    }
}
