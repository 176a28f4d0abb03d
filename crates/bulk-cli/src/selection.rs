//! What of the files is loaded, as the flags say it.

use std::collections::BTreeMap;

use bulk_pg::{Condition, LoadOptions, TableName};

use crate::arguments::{Load, Mirror};
use crate::exit::Failure;

/// Sets what `bulk load` was asked for.
pub(crate) fn select(load: &Load, options: &mut LoadOptions) -> Result<(), Failure> {
    options.columns = columns(&load.columns)?;
    options.filter = load.filter.clone();
    options.limit = load.limit;
    options.repair = load.repair;
    Ok(())
}

/// What `bulk mirror` was asked for, by the names of tables: one that is to take the place of another has its name.
#[derive(Debug, Default)]
pub(crate) struct Selection {
    tables: BTreeMap<String, Chosen>,
    limit: Option<u64>,
    repair: bool,
}

#[derive(Debug, Default)]
struct Chosen {
    columns: Option<Vec<String>>,
    filter: Vec<Condition>,
}

impl Selection {
    /// `tables` are those of the run, by the base names of their files.
    pub(crate) fn new(mirror: &Mirror, tables: &BTreeMap<String, TableName>) -> Result<Self, Failure> {
        let mut selection = Self { tables: BTreeMap::new(), limit: mirror.limit, repair: mirror.repair };
        for text in &mirror.columns {
            let usage = |what: String| Failure::usage(format!("--columns {text}: {what}"));
            let (table, names) = text.split_once('=').ok_or_else(|| usage("that is not TABLE=COLUMN,…".to_owned()))?;
            let table = find(tables, table).map_err(usage)?;
            let chosen = selection.tables.entry(table.name.as_str().to_owned()).or_default();
            chosen.columns.get_or_insert_default().extend(names_of(names).map_err(usage)?);
        }
        for text in &mirror.filter {
            let usage = |what: String| Failure::usage(format!("--where {text}: {what}"));
            let (table, condition) =
                text.split_once('.').ok_or_else(|| usage("that is not TABLE.COLUMN=VALUE".to_owned()))?;
            let table = find(tables, table).map_err(usage)?;
            let condition = condition.parse().map_err(|error: bulk_pg::InvalidCondition| usage(error.to_string()))?;
            selection.tables.entry(table.name.as_str().to_owned()).or_default().filter.push(condition);
        }
        Ok(selection)
    }

    /// Sets what was asked for of a table.
    pub(crate) fn select(&self, table: &TableName, options: &mut LoadOptions) {
        if let Some(Chosen { columns, filter }) = self.tables.get(table.name.as_str()) {
            options.columns.clone_from(columns);
            options.filter.clone_from(filter);
        }
        options.limit = self.limit;
        options.repair = self.repair;
    }
}

/// A table of the run, by its name or by that of its file.
fn find(tables: &BTreeMap<String, TableName>, name: &str) -> Result<TableName, String> {
    let name = name.trim();
    let by_name = tables.values().find(|table| table.name.as_str() == name);
    by_name.or_else(|| tables.get(name)).cloned().ok_or_else(|| {
        let known: Vec<_> = tables.values().map(|table| table.name.as_str()).collect();
        format!("{name} is no table of this run; it has {}", known.join(", "))
    })
}

fn columns(texts: &[String]) -> Result<Option<Vec<String>>, Failure> {
    let mut columns = Vec::new();
    for text in texts {
        columns.extend(names_of(text).map_err(|what| Failure::usage(format!("--columns {text}: {what}")))?);
    }
    Ok((!texts.is_empty()).then_some(columns))
}

/// Names between commas. What stands in double quotes, doubled inside, is taken as it is.
fn names_of(text: &str) -> Result<Vec<String>, String> {
    let mut names = Vec::new();
    let mut rest = text;
    loop {
        rest = rest.trim_start();
        let mut name = String::new();
        if let Some(quoted) = rest.strip_prefix('"') {
            rest = quoted;
            loop {
                let (before, after) = rest.split_once('"').ok_or("the double quotes around a name are not closed")?;
                name.push_str(before);
                rest = after;
                match rest.strip_prefix('"') {
                    Some(after) => rest = after,
                    None => break,
                }
                name.push('"');
            }
            rest = rest.trim_start();
        } else {
            let (before, after) = rest.split_at(rest.find(',').unwrap_or(rest.len()));
            (name, rest) = (before.trim_end().to_owned(), after);
        }
        if name.is_empty() {
            return Err("a column's name is empty".to_owned());
        }
        names.push(name);
        match rest.strip_prefix(',') {
            Some(more) => rest = more,
            None if rest.is_empty() => return Ok(names),
            None => return Err("a comma stands between names".to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_people_write_them() {
        for (text, names) in [
            ("id", &["id"][..]),
            ("id, court_id ,a b", &["id", "court_id", "a b"]),
            ("\"a,b\" ,\" x\"\"\",c", &["a,b", " x\"", "c"]),
        ] {
            assert_eq!(names_of(text).unwrap(), names);
        }
        for none in ["", "a,", ",a", "\"\"", "\"a", "\"a\"b"] {
            assert!(names_of(none).is_err(), "{none}");
        }
    }
}
