//! What an export is of: a TOML file.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bulk_archive::{ParquetColumn, ParquetColumns, Shape};
use bulk_pg::{Ident, ItemDeletions, ItemJson, ItemRows, ItemSource, TableName};
use serde::{Deserialize, Deserializer, de};
use toml::Spanned;

use crate::arguments;
use crate::exit::Failure;

/// A spec that was read and makes sense.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct Spec {
    pub(crate) out: Option<PathBuf>,
    #[serde(default, deserialize_with = "level")]
    pub(crate) level: Option<u32>,
    #[serde(default, rename = "block-length", deserialize_with = "length")]
    pub(crate) block_len: Option<u32>,
    #[serde(default, rename = "chain-length", deserialize_with = "length")]
    pub(crate) chain_len: Option<u32>,
    #[serde(default)]
    pub(crate) reflink: bool,
    #[serde(default, deserialize_with = "span")]
    pub(crate) overlap: Option<Duration>,
    pub(crate) time_zone: Option<String>,
    #[serde(default)]
    pub(crate) keep_empty: bool,
    #[serde(default)]
    pub(crate) ignore_times: bool,
    #[serde(default)]
    pub(crate) all_tar: bool,
    /// What stands beside archives, unless a type says otherwise.
    #[serde(default, deserialize_with = "shapes")]
    pub(crate) also: Option<BTreeSet<Shape>>,
    /// What stands beside the folders of types, unless a type says otherwise.
    #[serde(default, deserialize_with = "shapes")]
    pub(crate) whole: Option<BTreeSet<Shape>>,
    /// The types as they are written; none once they make sense.
    #[serde(default, rename = "type")]
    written: Vec<Type>,
    #[serde(skip)]
    pub(crate) also_of: BTreeMap<String, BTreeSet<Shape>>,
    #[serde(skip)]
    pub(crate) whole_of: BTreeMap<String, BTreeSet<Shape>>,
    /// Of all types: where one says nothing, those that are there by default.
    #[serde(skip)]
    pub(crate) columns_of: BTreeMap<String, ParquetColumns>,
    #[serde(skip)]
    pub(crate) types: Vec<ItemSource>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Type {
    name: Spanned<String>,
    #[serde(default, deserialize_with = "table")]
    table: Option<TableName>,
    query: Option<String>,
    #[serde(deserialize_with = "column")]
    id: Ident,
    #[serde(deserialize_with = "column")]
    group: Ident,
    #[serde(default, deserialize_with = "optional_column")]
    modified: Option<Ident>,
    #[serde(default, deserialize_with = "columns")]
    columns: Option<Vec<Ident>>,
    #[serde(default, deserialize_with = "optional_column")]
    json: Option<Ident>,
    deletions: Option<Spanned<Deletions>>,
    #[serde(default, deserialize_with = "shapes")]
    also: Option<BTreeSet<Shape>>,
    #[serde(default, deserialize_with = "shapes")]
    whole: Option<BTreeSet<Shape>>,
    #[serde(rename = "parquet-columns")]
    parquet_columns: Option<Spanned<Vec<ParquetColumn>>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Deletions {
    query: Option<String>,
    #[serde(default, deserialize_with = "table")]
    table: Option<TableName>,
    #[serde(default, deserialize_with = "optional_column")]
    id: Option<Ident>,
    #[serde(default, deserialize_with = "optional_column")]
    deleted: Option<Ident>,
}

impl Spec {
    /// Reads a file.
    pub(crate) fn read(path: &Path) -> Result<Self, Failure> {
        let text = std::fs::read_to_string(path)
            .map_err(|error| Failure::usage(format!("cannot read {}: {error}", path.display())))?;
        let spec = Self::parse(&text).map_err(|what| Failure::usage(format!("{}: {what}", path.display())))?;
        if spec.types.is_empty() {
            return Err(Failure::usage(format!("{}: it has no [[type]]", path.display())));
        }
        Ok(spec)
    }

    /// Its own words for what is wrong name the line, and the key where there is one.
    fn parse(text: &str) -> Result<Self, String> {
        let place = |span: Option<Range<usize>>| {
            let start = span.map_or(0, |span| span.start.min(text.len()));
            let before = text.get(..start).unwrap_or_default();
            let line = text.lines().nth(before.matches('\n').count()).unwrap_or_default();
            let key = line.split_once('=').map(|(key, _)| format!(", {}", key.trim())).unwrap_or_default();
            format!("line {}{key}", 1 + before.matches('\n').count())
        };
        let mut spec: Self =
            toml::from_str(text).map_err(|error| format!("{}: {}", place(error.span()), error.message().trim_end()))?;
        let mut names = BTreeSet::new();
        for item in std::mem::take(&mut spec.written) {
            let span = item.name.span();
            let at_name = |what: &str| format!("{}: {what}", place(Some(span.clone())));
            if item.name.get_ref().is_empty() {
                return Err(at_name("a type without a name"));
            }
            if !names.insert(item.name.get_ref().clone()) {
                return Err(at_name(&format!("there is another type {:?}", item.name.get_ref())));
            }
            spec.also_of.extend(item.also.map(|also| (item.name.get_ref().clone(), also)));
            spec.whole_of.extend(item.whole.map(|whole| (item.name.get_ref().clone(), whole)));
            let columns = match item.parquet_columns {
                None => ParquetColumns::default(),
                Some(columns) => {
                    let span = columns.span();
                    let columns = ParquetColumns::new(columns.into_inner());
                    columns.map_err(|what| format!("{}: {what}", place(Some(span))))?
                }
            };
            spec.columns_of.insert(item.name.get_ref().clone(), columns);
            let rows = match (item.table, item.query) {
                (Some(table), None) => ItemRows::Table(table),
                (None, Some(query)) => ItemRows::Query(query),
                (Some(_), Some(_)) => return Err(at_name("this type has a table and a query; give one of them")),
                (None, None) => return Err(at_name("this type has neither a table nor a query")),
            };
            let mut source = ItemSource::new(item.name.get_ref(), rows, item.id, item.group);
            source.modified = item.modified;
            source.json = match (item.columns, item.json) {
                (None, None) => ItemJson::Row,
                (Some(columns), None) => ItemJson::Columns(columns),
                (None, Some(column)) => ItemJson::Column(column),
                (Some(_), Some(_)) => return Err(at_name("this type has columns and json; give one of them")),
            };
            source.deletions = match item.deletions {
                None => None,
                Some(deletions) => {
                    let span = deletions.span();
                    let deletions = deletions.into_inner().check();
                    Some(deletions.map_err(|what| format!("{}: {what}", place(Some(span))))?)
                }
            };
            spec.types.push(source);
        }
        Ok(spec)
    }

    /// Leaves only the types of these names, if there are any.
    pub(crate) fn choose(&mut self, names: &[String]) -> Result<(), Failure> {
        let known: Vec<&str> = self.types.iter().map(|item| item.name.as_str()).collect();
        if let Some(name) = names.iter().find(|name| !known.contains(&name.as_str())) {
            return Err(Failure::usage(format!("--type {name}: the spec has {}", known.join(", "))));
        }
        self.types.retain(|item| names.is_empty() || names.contains(&item.name));
        Ok(())
    }
}

impl Deletions {
    fn check(self) -> Result<ItemDeletions, &'static str> {
        match (self.query, self.table, self.id, self.deleted) {
            (Some(query), None, None, None) => Ok(ItemDeletions::Query(query)),
            (None, Some(table), Some(id), Some(deleted)) => Ok(ItemDeletions::Table { table, id, deleted }),
            _ => Err("deletions have either a query, or a table, id and deleted"),
        }
    }
}

fn level<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u32>, D::Error> {
    let level = u32::deserialize(deserializer)?;
    if (1..=9).contains(&level) { Ok(Some(level)) } else { Err(de::Error::custom("a level is 1 to 9")) }
}

fn length<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u32>, D::Error> {
    let length = arguments::segment(&String::deserialize(deserializer)?).map_err(de::Error::custom)?;
    u32::try_from(length).map(Some).map_err(|_| de::Error::custom("it must be less than 4GiB"))
}

fn shapes<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<BTreeSet<Shape>>, D::Error> {
    let names = Vec::<String>::deserialize(deserializer)?;
    names.iter().map(|name| name.parse::<Shape>().map_err(de::Error::custom)).collect::<Result<_, _>>().map(Some)
}

fn span<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    arguments::time(&String::deserialize(deserializer)?).map(Some).map_err(de::Error::custom)
}

fn table<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<TableName>, D::Error> {
    String::deserialize(deserializer)?.parse().map(Some).map_err(de::Error::custom)
}

fn column<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Ident, D::Error> {
    Ident::new(String::deserialize(deserializer)?).map_err(de::Error::custom)
}

fn optional_column<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Ident>, D::Error> {
    column(deserializer).map(Some)
}

fn columns<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<Ident>>, D::Error> {
    let names = Vec::<String>::deserialize(deserializer)?;
    if names.is_empty() {
        return Err(de::Error::custom("no columns are no JSON"));
    }
    names.into_iter().map(Ident::new).collect::<Result<_, _>>().map(Some).map_err(de::Error::custom)
}

#[cfg(test)]
mod tests {
    use bulk_archive::{ColumnSource, ColumnType, Unfit};

    use super::*;

    #[test]
    fn a_spec_is_read() {
        let spec = Spec::parse(
            r#"
            out = "archives"
            level = 7
            block-length = "64KiB"
            overlap = "1h 30m"
            all-tar = true
            reflink = true
            also = ["jsonl.zst"]
            whole = []
            [[type]]
            name = "opinions"
            table = "Search.Opinion"
            id = "id"
            group = "court_id"
            modified = "date_modified"
            columns = ["id", "Plain Text"]
            deletions = { table = '"Graves"', id = "id", deleted = "at" }
            [[type]]
            name = "people"
            query = """
            SELECT * FROM people;
            """
            id = "ID"
            group = "g"
            json = "body"
            deletions.query = "SELECT 1"
            also = ["parquet", "jsonl.gz"]
            whole = ["parquet"]
            parquet-columns = [
                { name = "id", type = "bigint", from = "id" },
                { name = "born", type = "date", unfit = "null" },
            ]
            "#,
        )
        .unwrap();
        assert_eq!((spec.level, spec.block_len, spec.chain_len), (Some(7), Some(64 << 10), None));
        assert_eq!((spec.overlap, spec.all_tar, spec.keep_empty), (Some(Duration::from_secs(5400)), true, false));
        assert!(spec.reflink);
        assert_eq!(spec.also, Some(BTreeSet::from([Shape::JsonlZst])));
        let also = BTreeSet::from([Shape::JsonlGz, Shape::Parquet]);
        assert_eq!(spec.also_of, BTreeMap::from([("people".to_owned(), also)]));
        assert_eq!(spec.whole, Some(BTreeSet::new()));
        assert_eq!(spec.whole_of, BTreeMap::from([("people".to_owned(), BTreeSet::from([Shape::Parquet]))]));
        let mut columns = [ParquetColumn::new("id", ColumnType::Bigint), ParquetColumn::new("born", ColumnType::Date)];
        (columns[0].from, columns[1].unfit) = (ColumnSource::Id, Unfit::Null);
        let columns = ParquetColumns::new(columns.into()).unwrap();
        let all = [("opinions".to_owned(), ParquetColumns::default()), ("people".to_owned(), columns)];
        assert_eq!(spec.columns_of, BTreeMap::from(all));
        let [opinions, people] = &spec.types[..] else { panic!("{:?}", spec.types) };
        let ident = |name| Ident::new(name).unwrap();
        assert_eq!(opinions.rows, ItemRows::Table(TableName::new("search", "opinion").unwrap()));
        assert_eq!(opinions.json, ItemJson::Columns(vec![ident("id"), ident("Plain Text")]));
        let graves = TableName::new("public", "Graves").unwrap();
        let deletions = ItemDeletions::Table { table: graves, id: ident("id"), deleted: ident("at") };
        assert_eq!(opinions.deletions, Some(deletions));
        assert_eq!((people.id.as_str(), &people.json), ("ID", &ItemJson::Column(ident("body"))));
        assert_eq!(people.deletions, Some(ItemDeletions::Query("SELECT 1".to_owned())));
        assert_eq!(people.modified, None);
    }

    #[test]
    fn what_is_wrong_is_named_by_line_and_key() {
        let of = |more: &str| Spec::parse(&format!("[[type]]\nname = \"a\"\ngroup = \"g\"\n{more}")).unwrap_err();
        for (more, said) in [
            (
                "id = \"i\"\ntabel = \"t\"",
                "line 5, tabel: unknown field `tabel`, expected one of `name`, `table`, `query`, `id`, `group`, `modified`, `columns`, `json`, `deletions`, `also`, `whole`, `parquet-columns`",
            ),
            ("id = \"i\"\ntable = \"a b\"", "line 5, table: \"a b\" is not a name of the form table or schema.table"),
            ("id = \"\"\ntable = \"t\"", "line 4, id: an identifier is empty"),
            ("id = 7\ntable = \"t\"", "line 4, id: invalid type: integer `7`, expected a string"),
            ("table = \"t\"", "line 1: missing field `id`"),
            ("id = \"i\"", "line 2, name: this type has neither a table nor a query"),
            (
                "id = \"i\"\ntable = \"t\"\nquery = \"SELECT 1\"",
                "line 2, name: this type has a table and a query; give one of them",
            ),
            (
                "id = \"i\"\ntable = \"t\"\njson = \"j\"\ncolumns = [\"c\"]",
                "line 2, name: this type has columns and json; give one of them",
            ),
            (
                "id = \"i\"\ntable = \"t\"\nalso = [\"tar.gz\"]",
                "line 6, also: \"tar.gz\" is no shape; there are jsonl.gz, jsonl.zst, parquet",
            ),
            ("id = \"i\"\ntable = \"t\"\ncolumns = []", "line 6, columns: no columns are no JSON"),
            ("id = \"i\"\ntable = \"t\"\nparquet-columns = []", "line 6, parquet-columns: there are no columns"),
            (
                "id = \"i\"\ntable = \"t\"\nparquet-columns = [{ name = \"a\", type = \"int\" }]",
                "line 6, parquet-columns: unknown variant `int`, expected one of `bool`, `bigint`, `double`, `text`, `date`, `timestamp`, `json`",
            ),
            (
                "id = \"i\"\ntable = \"t\"\nparquet-columns = [{ name = \"a\", type = \"text\", from = \"b\" }]",
                "line 6, parquet-columns: \"b\" is neither id, modified nor item, nor a JSON pointer such as /court/id",
            ),
            (
                "id = \"i\"\ntable = \"t\"\ndeletions = { table = \"t\" }",
                "line 6, deletions: deletions have either a query, or a table, id and deleted",
            ),
            (
                "id = \"i\"\ntable = \"t\"\n[[type]]\nname = \"a\"\nid = \"i\"\ngroup = \"g\"\ntable = \"t\"",
                "line 7, name: there is another type \"a\"",
            ),
        ] {
            assert_eq!(of(more), said);
        }
        for (text, said) in [
            ("out = 1", "line 1, out: invalid type: integer `1`, expected path string"),
            ("\nlevel = 10", "line 2, level: a level is 1 to 9"),
            ("overlap = \"soon\"", "line 1, overlap: a time is a number with a unit, such as 90s or 5m"),
            ("chain-length = \"8GiB\"", "line 1, chain-length: it must be less than 4GiB"),
            (
                "db = \"postgres://me:secret@host/x\"",
                "line 1, db: unknown field `db`, expected one of `out`, `level`, `block-length`, `chain-length`, `reflink`, `overlap`, `time-zone`, `keep-empty`, `ignore-times`, `all-tar`, `also`, `whole`, `type`",
            ),
        ] {
            assert_eq!(Spec::parse(text).unwrap_err(), said);
        }
    }
}
