//! `bulk load --create-table`: a table for the files.

use bulk_pg::{
    Ident, Inference, InferredColumn, InferredTable, InputFormat, LoadOptions, Session, SqlType, create_table,
    table_exists,
};
use serde_json::json;

use crate::arguments::Load;
use crate::counted::counted;
use crate::exit::Failure;
use crate::inputs::Inputs;
use crate::report::Report;

/// Makes the table that the inputs fit into, unless it is there; or says how it would, and makes nothing.
pub(crate) async fn create(
    load: &Load,
    inputs: &mut Inputs<'_>,
    session: &mut Session,
    options: &LoadOptions,
    is_dry_run: bool,
    report: &Report,
) -> Result<(), Failure> {
    let table = &load.table;
    let is_there = || report.note(format!("table {table:#} is there, and is loaded into as it is"));
    if table_exists(session, table).await? {
        is_there();
        return Ok(());
    }
    let mut chosen = Vec::new();
    for (column, text) in column_types(load)? {
        let found = SqlType::find(session, text).await?;
        let unknown = || Failure::usage(format!("--column-type {column}={text}: the server has no such type"));
        chosen.push((column, found.ok_or_else(unknown)?));
    }
    let mut inference = Inference::new();
    for place in 0..inputs.items.len() {
        let options = options.clone();
        let observed = inputs.sample(place, move |name, input| {
            inference.read(name, input, &options)?;
            Ok(inference)
        });
        inference = observed.await?;
    }
    if let Some(what) = inference.joined_header()
        && load.delimiter.is_none()
        && load.dialect.is_none()
    {
        return Err(Failure::usage(format!("--create-table: {what}; if there is one, say --delimiter ','")));
    }
    let mut inferred = inference.finish();
    for (name, sql_type) in chosen {
        match inferred.columns.iter_mut().find(|column| column.name.as_str() == name) {
            Some(column) => column.chosen = Some(sql_type),
            None => {
                let known: Vec<_> = inferred.columns.iter().map(|column| column.name.as_str()).collect();
                let what =
                    format!("--column-type {name}: the files have no such column; they have {}", known.join(", "));
                return Err(Failure::usage(what));
            }
        }
    }
    let sql = inferred.create_sql(table);
    let mut fields = json!({"table": format!("{table:#}"), "sql": sql, "records": inferred.records});
    if is_dry_run {
        report.planned(&format!("{sql};"), fields);
    } else if create_table(session, table, &inferred).await? {
        fields["columns"] = inferred.columns.len().into();
        report.event("created", &said(load, &inferred), fields);
    } else {
        is_there();
    }
    Ok(())
}

fn said(load: &Load, inferred: &InferredTable) -> String {
    let column = |column: &InferredColumn| format!("{:#} {}", column.name, column.type_name());
    let columns: Vec<_> = inferred.columns.iter().map(column).collect();
    let records = counted(inferred.records, "record has", "records have");
    format!("table {:#} is made as the first {records} it: {}", load.table, columns.join(", "))
}

/// Says what is wrong with the arguments, before anything is asked of anybody.
pub(crate) fn check(load: &Load) -> Result<(), Failure> {
    if load.create_table && !matches!(load.format, InputFormat::Csv | InputFormat::Ndjson) {
        let what = format!(
            "--create-table tells types from CSV and NDJSON, and --format is {}: make the table yourself",
            load.format
        );
        return Err(Failure::usage(what));
    }
    column_types(load)?;
    Ok(())
}

/// `column=type`, each.
fn column_types(load: &Load) -> Result<Vec<(&str, &str)>, Failure> {
    let malformed = |text: &'_ str| Failure::usage(format!("--column-type {text}: that is not COLUMN=TYPE"));
    let pairs = load.column_type.iter().map(|text| {
        let pair = text.split_once('=').filter(|(column, sql_type)| !column.is_empty() && !sql_type.is_empty());
        pair.ok_or_else(|| malformed(text))
    });
    pairs.collect()
}

/// What to do about a value that does not fit into a column whose type was told from a sample.
pub(crate) fn advise(failure: Failure, load: &Load) -> Failure {
    let column = failure.error.chain().find_map(|cause| match cause.downcast_ref()? {
        bulk_pg::Error::Value { column, .. } => Some(column.to_string()),
        bulk_pg::Error::Rejects { column: Some(column), sqlstate, .. } if is_of_data(sqlstate) => {
            Some(column.to_string())
        }
        bulk_pg::Error::Copy { column: Some(column), source, .. }
            if source.code().is_some_and(|code| is_of_data(code.code())) =>
        {
            Some(column.to_string())
        }
        _ => None,
    });
    let is_chosen = |column: &str| column_types(load).is_ok_and(|types| types.iter().any(|(name, _)| *name == column));
    let Some((column, name)) =
        column.filter(|column| !is_chosen(column)).and_then(|name| Some((Ident::new(&name).ok()?, name)))
    else {
        return failure;
    };
    let Failure { exit, error } = failure;
    let error = anyhow::anyhow!(
        "{error:#}; the type of the column was inferred from a sample, if --create-table made it: after ALTER TABLE {} ALTER \
         COLUMN {column} TYPE text the same command goes on; or drop the table and begin anew with --column-type {name}=text",
        load.table
    );
    Failure { exit, error }
}

/// Data exceptions (PostgreSQL manual, "PostgreSQL Error Codes").
fn is_of_data(sqlstate: &str) -> bool {
    sqlstate.starts_with("22")
}
