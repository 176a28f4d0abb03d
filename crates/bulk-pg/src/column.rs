//! How a file's columns meet a table's.

use std::collections::HashMap;

use crate::choice::list;
use crate::misspelt::no_table;
use crate::{BinaryType, Drift, Error, Ident, InputFormat, LoadOptions, Session, Source, TableName};

/// A column of a table, out of the server's catalogue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Column {
    pub(crate) name: String,
    pub(crate) type_name: String,
    /// If its values can be encoded.
    pub(crate) binary_type: Option<BinaryType>,
    /// NOT NULL with nothing that would give it a value.
    pub(crate) required: bool,
    pub(crate) generated: bool,
}

/// The table as the server has it.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    pub(crate) oid: u32,
    pub(crate) columns: Vec<Column>,
}

impl Target {
    pub(crate) async fn find(session: &Session, table: &TableName) -> Result<Self, Error> {
        let rows = session
            .client()
            .query(
                "SELECT c.oid, a.attname::text, pg_catalog.format_type(a.atttypid, a.atttypmod),
                        a.attnotnull AND NOT a.atthasdef AND a.attidentity = '', a.attgenerated <> '',
                        a.atttypid, a.atttypmod
                 FROM pg_catalog.pg_class c
                 JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
                 JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
                 WHERE n.nspname = $1 AND c.relname = $2 AND c.relkind IN ('r', 'p')
                 ORDER BY a.attnum",
                &[&table.schema.as_str(), &table.name.as_str()],
            )
            .await
            .map_err(Error::database(format!("read the columns of {table:#}")))?;
        let Some(oid) = rows.first().map(|row| row.get(0)) else { return Err(no_table(session, table).await) };
        let column = |row: &tokio_postgres::Row| Column {
            name: row.get(1),
            type_name: row.get(2),
            binary_type: BinaryType::new(row.get(5), row.get(6)),
            required: row.get(3),
            generated: row.get(4),
        };
        Ok(Self { oid, columns: rows.iter().map(column).collect() })
    }
}

/// Which columns COPY gets, from where, and what differs.
#[derive(Clone, Debug)]
pub(crate) struct Mapping {
    /// `"a", "b"`, as COPY wants it.
    pub(crate) list: String,
    /// The same names, as they are.
    pub(crate) names: Vec<String>,
    pub(crate) sources: Vec<Source>,
    /// The same with their types, if each has one that can be encoded.
    pub(crate) binary: Option<Vec<(Source, BinaryType)>>,
    /// One sentence for each difference.
    pub(crate) drift: Vec<Drift>,
}

impl Mapping {
    pub(crate) fn new(
        file: &str,
        table: &TableName,
        header: &[String],
        target: &Target,
        options: &LoadOptions,
    ) -> Result<Self, Error> {
        let LoadOptions { fill, columns: chosen, .. } = options;
        let misfit = |what: String| Error::Columns { file: file.to_owned(), what };
        let mut places: HashMap<&str, usize> = HashMap::new();
        for (place, name) in header.iter().enumerate() {
            if places.insert(name, place).is_some() {
                return Err(misfit(format!("its header has the column {name:?} twice")));
            }
        }
        for name in chosen.iter().flatten() {
            if !places.contains_key(name.as_str()) {
                return Err(misfit(format!("it has no column {name:?}; its columns are {}", list(header))));
            }
            if !target.columns.iter().any(|column| column.name == *name) {
                return Err(misfit(format!("{table:#} has no column {name:?}, which is to be loaded")));
            }
        }
        let is_rest = |name: &str| options.input_format == InputFormat::Ndjson && options.rest.as_deref() == Some(name);
        let is_chosen = |name: &str| {
            is_rest(name) || chosen.as_ref().is_none_or(|chosen| chosen.iter().any(|chosen| chosen == name))
        };
        let left: Vec<&str> = header.iter().map(String::as_str).filter(|name| !is_chosen(name)).collect();
        places.retain(|name, _| is_chosen(name));
        let (mut names, mut sources, mut drift, mut lacking) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        let (mut taken, mut list, mut types) = (Vec::new(), Vec::new(), Vec::new());
        for column in &target.columns {
            match (places.remove(column.name.as_str()), fill.get(&column.name)) {
                (Some(_), _) if column.generated => {
                    drift.push(Drift::Generated { column: column.name.clone() });
                    continue;
                }
                (Some(place), _) => {
                    taken.push(place);
                    sources.push(Source::Field(place));
                }
                (None, Some(value)) => {
                    drift.push(Drift::Filled { column: column.name.clone(), value: value.clone() });
                    sources.push(Source::Constant(value.clone().into_bytes()));
                }
                (None, None) if column.required => {
                    lacking.push(column);
                    continue;
                }
                (None, None) => {
                    if !column.generated && !left.contains(&column.name.as_str()) {
                        drift.push(Drift::Default { column: column.name.clone() });
                    }
                    continue;
                }
            }
            list.push(Ident::new(&column.name).map_err(|error| misfit(error.to_string()))?.to_string());
            names.push(column.name.clone());
            types.push(column.binary_type);
        }
        let mut extra: Vec<_> = places.into_iter().collect();
        extra.sort_by_key(|(_, place)| *place);
        let extra: Vec<_> = extra.into_iter().map(|(name, _)| name).collect();
        if taken.is_empty() {
            let none = format!("none of its columns ({}) is in {table:#}", header.join(", "));
            let alike = alike(&extra, target).map_or_else(String::new, |alike| format!(", which has {alike}"));
            return Err(misfit(format!("{none}{alike}")));
        }
        if !lacking.is_empty() {
            let flag = |column: &&Column| {
                let argument = format!("{}.{}=VALUE", table.name.as_str(), column.name);
                let plain = argument.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_.=".contains(&byte));
                if plain {
                    format!("--fill {argument}")
                } else {
                    format!("--fill '{}'", argument.replace('\'', r"'\''"))
                }
            };
            let flags: Vec<_> = lacking.iter().map(flag).collect();
            let is_left = lacking.iter().any(|column| left.contains(&column.name.as_str()));
            let (of, way_out) = if is_left { (" among those to be loaded", "load it, too, or ") } else { ("", "") };
            let unknown = match extra.is_empty() {
                true => String::new(),
                false => {
                    let alike = alike(&extra, target).map_or_else(String::new, |alike| format!(", which has {alike}"));
                    format!("; of its columns {} not in the table{alike}", named(&extra, "is", "are"))
                }
            };
            let lacking: Vec<_> =
                lacking.iter().map(|column| format!("{} ({})", column.name, column.type_name)).collect();
            return Err(misfit(format!(
                "it has no column{of} for {} of {table:#}, which may not be NULL and has no default; {way_out}give every row a \
                 value with {}{unknown}",
                lacking.join(", "),
                flags.join(" ")
            )));
        }
        if !taken.is_sorted() {
            drift.push(Drift::Order);
        }
        for name in fill.keys().filter(|name| !target.columns.iter().any(|column| column.name == **name)) {
            drift.push(Drift::Unused { column: name.clone(), table: table.clone() });
        }
        drift.extend(extra.into_iter().map(|name| Drift::Dropped { column: name.to_owned() }));
        let types: Option<Vec<_>> = types.into_iter().collect();
        let binary = types.map(|types| sources.iter().cloned().zip(types).collect());
        Ok(Self { list: list.join(", "), names, sources, binary, drift })
    }
}

/// What the table has in place of names that it does not have, if they differ in case alone.
fn alike(names: &[&str], target: &Target) -> Option<String> {
    let alike = |name: &&str| {
        let name = name.to_lowercase();
        target.columns.iter().map(|column| column.name.as_str()).find(|column| column.to_lowercase() == name)
    };
    let (names, columns): (Vec<_>, Vec<_>) = names.iter().filter_map(|name| Some((*name, alike(name)?))).unzip();
    (!names.is_empty()).then(|| format!("{}; {} in case only", columns.join(", "), named(&names, "differs", "differ")))
}

/// Names with their verb.
fn named(names: &[&str], one: &str, many: &str) -> String {
    format!("{} {}", names.join(", "), if names.len() == 1 { one } else { many })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mapping(header: &[&str], fill: &[(&str, &str)]) -> Result<Mapping, String> {
        chosen(header, None, fill)
    }

    fn chosen(header: &[&str], chosen: Option<&[&str]>, fill: &[(&str, &str)]) -> Result<Mapping, String> {
        let column = |name: &str, required, generated| Column {
            name: name.to_owned(),
            type_name: "text".to_owned(),
            binary_type: BinaryType::new(25, -1).filter(|_| name != "Note"),
            required,
            generated,
        };
        let target = Target {
            oid: 1,
            columns: vec![
                column("id", true, false),
                column("Note", false, false),
                column("path", true, false),
                column("sum", false, true),
            ],
        };
        let header: Vec<_> = header.iter().map(|name| (*name).to_owned()).collect();
        let fill = fill.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let columns = chosen.map(|chosen| chosen.iter().map(|name| (*name).to_owned()).collect());
        let options = LoadOptions { fill, columns, ..LoadOptions::default() };
        let table = "t".parse().unwrap();
        Mapping::new("t.csv", &table, &header, &target, &options).map_err(|error| error.to_string())
    }

    fn said(mapping: &Mapping) -> Vec<String> {
        mapping.drift.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn columns_meet_by_name() {
        let mapping = mapping(&["path", "more", "id", "Note"], &[]).unwrap();
        assert_eq!(mapping.list, "\"id\", \"Note\", \"path\"");
        assert_eq!(mapping.sources, [Source::Field(2), Source::Field(3), Source::Field(0)]);
        assert_eq!(mapping.names, ["id", "Note", "path"]);
        assert_eq!(mapping.binary, None);
        assert_eq!(
            said(&mapping),
            [
                "the columns stand in another order in the file; they are matched by name",
                "column more of the file is not in the table and is not loaded",
            ]
        );
    }

    #[test]
    fn types_that_are_known_come_with_the_columns() {
        let mapping = mapping(&["path", "id"], &[]).unwrap();
        let text = BinaryType::new(25, -1).unwrap();
        assert_eq!(mapping.binary, Some(vec![(Source::Field(1), text), (Source::Field(0), text)]));
    }

    #[test]
    fn a_required_column_must_come_from_somewhere() {
        assert_eq!(
            mapping(&["id", "Note"], &[]).unwrap_err(),
            "t.csv: it has no column for path (text) of public.t, which may not be NULL and has no default; \
             give every row a value with --fill t.path=VALUE"
        );
        assert_eq!(
            mapping(&["id", "Path", "more"], &[]).unwrap_err(),
            "t.csv: it has no column for path (text) of public.t, which may not be NULL and has no default; \
             give every row a value with --fill t.path=VALUE; of its columns Path, more are not in the table, which has \
             path; Path differs in case only"
        );
        let filled = mapping(&["id", "Note"], &[("path", "")]).unwrap();
        assert_eq!(filled.sources, [Source::Field(0), Source::Field(1), Source::Constant(Vec::new())]);
        assert_eq!(said(&filled), ["column path is not in the file; every row gets \"\""]);
    }

    #[test]
    fn columns_that_are_not_chosen_are_not_there() {
        let header = ["path", "more", "id", "Note"];
        let mapping = chosen(&header, Some(&["path", "id"]), &[]).unwrap();
        assert_eq!(mapping.names, ["id", "path"]);
        assert_eq!(said(&mapping), ["the columns stand in another order in the file; they are matched by name"]);
        let filled = chosen(&header, Some(&["id"]), &[("path", "x")]).unwrap();
        assert_eq!(filled.sources, [Source::Field(2), Source::Constant(b"x".to_vec())]);
        for (columns, error) in [
            (&["id", "pat"][..], "t.csv: it has no column \"pat\"; its columns are path, more, id, Note"),
            (&["id", "path", "more"], "t.csv: public.t has no column \"more\", which is to be loaded"),
            (
                &["id"],
                "t.csv: it has no column among those to be loaded for path (text) of public.t, which may not be NULL and has \
                 no default; load it, too, or give every row a value with --fill t.path=VALUE",
            ),
        ] {
            assert_eq!(chosen(&header, Some(columns), &[]).unwrap_err(), error);
        }
    }

    #[test]
    fn what_cannot_be_matched_is_refused() {
        assert_eq!(mapping(&["id", "id"], &[]).unwrap_err(), "t.csv: its header has the column \"id\" twice");
        assert_eq!(
            mapping(&["x", "y"], &[("id", "1"), ("path", "")]).unwrap_err(),
            "t.csv: none of its columns (x, y) is in public.t"
        );
        assert_eq!(
            mapping(&["ID", "PATH", "y"], &[("id", "1"), ("path", "")]).unwrap_err(),
            "t.csv: none of its columns (ID, PATH, y) is in public.t, which has id, path; ID, PATH differ in case only"
        );
    }
}
