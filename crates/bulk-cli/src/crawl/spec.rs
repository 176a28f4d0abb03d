//! What a crawl is of: a TOML file.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::ops::{Range, RangeInclusive};
use std::path::{Path, PathBuf};

use bulk_core::crawl::{Batch, Pagination, RequestTemplate, Rule, Success};
use bulk_core::{Explode, LimiterOptions, Margin, RateLimit, Spread};
use bulk_pg::{CrawlMode, CrawlTable, TableName};
use serde::{Deserialize, Deserializer, de};
use serde_json::Value;
use toml::Spanned;

use crate::arguments;
use crate::exit::Failure;

/// A spec that was read and makes sense.
pub(crate) struct Spec {
    pub(crate) name: String,
    pub(crate) input: Input,
    pub(crate) template: RequestTemplate,
    pub(crate) limits: LimiterOptions,
    pub(crate) concurrency: Option<usize>,
    pub(crate) success: Success,
    pub(crate) pagination: Option<Pagination>,
    pub(crate) batch: Option<Batch>,
    pub(crate) rows: Vec<Rows>,
    pub(crate) after: Vec<String>,
    /// The file's text: whatever tells what calls and rows are.
    pub(crate) definition: String,
}

/// Where the records are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Input {
    Query(String),
    /// `-` is standard input.
    File(PathBuf),
}

/// What becomes of an answer in one table.
pub(crate) struct Rows {
    pub(crate) table: CrawlTable,
    pub(crate) explode: Explode,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    name: Option<String>,
    input: Spanned<InputTable>,
    request: Spanned<RequestTable>,
    limits: Spanned<LimitsTable>,
    success: Option<Spanned<SuccessTable>>,
    pages: Option<Spanned<PagesTable>>,
    batch: Option<Spanned<BatchTable>>,
    #[serde(default)]
    rows: Vec<Spanned<RowsTable>>,
    #[serde(default)]
    load: LoadTable,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct InputTable {
    query: Option<String>,
    file: Option<PathBuf>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RequestTable {
    #[serde(default = "get")]
    method: String,
    url: String,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    body: Option<toml::Value>,
    #[serde(default)]
    values: BTreeMap<String, String>,
    #[serde(default)]
    secrets: BTreeMap<String, String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct LimitsTable {
    #[serde(deserialize_with = "rates")]
    rate: Vec<RateLimit>,
    #[serde(default, deserialize_with = "rates")]
    per_host: Vec<RateLimit>,
    margin: Option<String>,
    spread: Option<SpreadName>,
    #[serde(default)]
    adaptive: bool,
    concurrency: Option<usize>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
enum SpreadName {
    Auto,
    Even,
    AtOnce,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SuccessTable {
    #[serde(default)]
    status: Vec<String>,
    #[serde(default)]
    rules: Vec<String>,
    #[serde(default)]
    lasting: Vec<String>,
    throttle: Option<String>,
    message: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct PagesTable {
    #[serde(default)]
    link_header: bool,
    next: Option<String>,
    cursor: Option<String>,
    parameter: Option<String>,
    first: Option<u64>,
    last: Option<String>,
    until_empty: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct BatchTable {
    size: usize,
    field: String,
    #[serde(default)]
    repeat: bool,
    elements: Option<String>,
    id: Option<String>,
    object: Option<String>,
    of_record: Option<String>,
    #[serde(default)]
    rules: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RowsTable {
    #[serde(deserialize_with = "table")]
    table: TableName,
    mode: Option<Mode>,
    #[serde(default)]
    each: Vec<String>,
    columns: toml::Table,
    #[serde(default)]
    require: Vec<String>,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Mode {
    Append,
    Upsert,
    Delete,
    Replace,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct LoadTable {
    #[serde(default)]
    after: Vec<String>,
}

fn get() -> String {
    "GET".to_owned()
}

impl Spec {
    /// Reads a file, and the secrets that it names.
    pub(crate) fn read(path: &Path) -> Result<Self, Failure> {
        let text = std::fs::read_to_string(path)
            .map_err(|error| Failure::usage(format!("cannot read {}: {error}", path.display())))?;
        let name = path.file_stem().map_or_else(|| "crawl".to_owned(), |stem| stem.to_string_lossy().into_owned());
        Self::parse(&text, name).map_err(|what| Failure::usage(format!("{}: {what}", path.display())))
    }

    fn parse(text: &str, name: String) -> Result<Self, String> {
        let line =
            |span: Range<usize>| 1 + text.get(..span.start.min(text.len())).unwrap_or_default().matches('\n').count();
        let file: File = toml::from_str(text).map_err(|error| match error.span() {
            Some(span) => format!("line {}: {}", line(span), error.message().trim_end()),
            None => error.message().trim_end().to_owned(),
        })?;
        fn read<T, R>(
            table: Spanned<T>,
            what: &str,
            line: impl Fn(Range<usize>) -> usize,
            read: impl FnOnce(T) -> Result<R, String>,
        ) -> Result<R, String> {
            let span = table.span();
            read(table.into_inner()).map_err(|error| format!("line {}, [{what}]: {error}", line(span)))
        }
        let limits = read(file.limits, "limits", line, LimitsTable::read)?;
        let rows: Vec<Rows> =
            file.rows.into_iter().map(|rows| read(rows, "rows", line, RowsTable::read)).collect::<Result<_, _>>()?;
        if rows.is_empty() {
            return Err("it has no [[rows]]".to_owned());
        }
        Ok(Self {
            name: file.name.filter(|name| !name.is_empty()).unwrap_or(name),
            input: read(file.input, "input", line, InputTable::read)?,
            template: read(file.request, "request", line, RequestTable::read)?,
            limits: limits.0,
            concurrency: limits.1,
            success: file
                .success
                .map_or_else(|| Ok(Success::default()), |table| read(table, "success", line, SuccessTable::read))?,
            pagination: file.pages.map(|table| read(table, "pages", line, PagesTable::read)).transpose()?,
            batch: file.batch.map(|table| read(table, "batch", line, BatchTable::read)).transpose()?,
            rows,
            after: file.load.after,
            definition: text.to_owned(),
        })
    }
}

fn said(error: impl Display) -> String {
    error.to_string()
}

impl InputTable {
    fn read(self) -> Result<Input, String> {
        match (self.query, self.file) {
            (Some(query), None) => Ok(Input::Query(query)),
            (None, Some(file)) => Ok(Input::File(file)),
            _ => Err("it has either a query or a file".to_owned()),
        }
    }
}

impl RequestTable {
    fn read(self) -> Result<RequestTemplate, String> {
        let mut template = RequestTemplate::new(&self.method, &self.url).map_err(said)?;
        for (name, value) in &self.headers {
            template = template.header(name, value).map_err(said)?;
        }
        if let Some(body) = self.body {
            let body: Value = serde_json::to_value(body).map_err(said)?;
            template = template.json(&body).map_err(said)?;
        }
        for (name, value) in &self.values {
            template = template.value(name, value);
        }
        for (name, place) in &self.secrets {
            template = template.secret(name, &secret(name, place)?);
        }
        Ok(template)
    }
}

/// What stands at the place of a secret. The spec itself holds none.
fn secret(name: &str, place: &str) -> Result<String, String> {
    let found = match place.split_once(':') {
        Some(("env", variable)) => std::env::var(variable).map_err(|_| format!("{variable} is not set"))?,
        Some(("file", path)) => {
            std::fs::read_to_string(path).map_err(|error| format!("cannot read {path}: {error}"))?
        }
        _ => {
            return Err(format!(
                "secrets.{name}: a secret is \"env:VARIABLE\" or \"file:PATH\", and never in the spec"
            ));
        }
    };
    match found.trim_end_matches(['\r', '\n']) {
        "" => Err(format!("secrets.{name} is empty")),
        secret => Ok(secret.to_owned()),
    }
}

impl LimitsTable {
    fn read(self) -> Result<(LimiterOptions, Option<usize>), String> {
        let mut options = LimiterOptions::default();
        (options.limits, options.per_host, options.adaptive) = (self.rate, self.per_host, self.adaptive);
        options.margin = match self.margin.as_deref() {
            None => options.margin,
            Some("exact") => Margin::Exact,
            Some(time) => Margin::Within(arguments::time(time).map_err(|error| format!("margin: {error}"))?),
        };
        options.spread = match self.spread {
            None | Some(SpreadName::Auto) => Spread::Auto,
            Some(SpreadName::Even) => Spread::Even,
            Some(SpreadName::AtOnce) => Spread::AtOnce,
        };
        if options.limits.is_empty() && options.per_host.is_empty() {
            return Err("it says no rate: what the server allows, such as rate = [\"25/s over 10s\"]".to_owned());
        }
        Ok((options, self.concurrency))
    }
}

impl SuccessTable {
    fn read(self) -> Result<Success, String> {
        let mut success = Success::default();
        if !self.status.is_empty() {
            success.statuses = self.status.iter().map(|range| status(range)).collect::<Result<_, _>>()?;
        }
        success.rules = rules(&self.rules)?;
        success.lasting = rules(&self.lasting)?;
        if let Some(path) = &self.throttle {
            success = success.throttle(path).map_err(said)?;
        }
        if let Some(path) = &self.message {
            success = success.message(path).map_err(said)?;
        }
        Ok(success)
    }
}

fn rules(texts: &[String]) -> Result<Vec<Rule>, String> {
    texts.iter().map(|text| text.parse().map_err(said)).collect()
}

/// `404`, or `200-299`.
fn status(text: &str) -> Result<RangeInclusive<u16>, String> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let code = |text: &str| text.trim().parse().ok().filter(|code| (100..=599).contains(code));
    match (code(first), code(last)) {
        (Some(first), Some(last)) if first <= last => Ok(first..=last),
        _ => Err(format!("status: {text:?} is neither \"404\" nor \"200-299\"")),
    }
}

impl PagesTable {
    fn read(self) -> Result<Pagination, String> {
        let Self { link_header, next, cursor, parameter, first, last, until_empty } = self;
        let first_page = first.unwrap_or(1);
        match (link_header, next, cursor, parameter, last, until_empty) {
            (true, None, None, None, None, None) => Ok(Pagination::link_header()),
            (false, Some(next), None, None, None, None) => Pagination::next_link(&next).map_err(said),
            (false, None, Some(cursor), Some(parameter), None, None) => {
                Pagination::cursor(&cursor, &parameter).map_err(said)
            }
            (false, None, None, Some(parameter), Some(last), None) => {
                Pagination::number(&parameter, first_page, &last).map_err(said)
            }
            (false, None, None, Some(parameter), None, Some(items)) => {
                Pagination::number_until_empty(&parameter, first_page, &items).map_err(said)
            }
            _ => {
                Err("it has either link-header = true, or next, or cursor and parameter, or parameter and one of last \
                      and until-empty"
                    .to_owned())
            }
        }
    }
}

impl BatchTable {
    fn read(self) -> Result<Batch, String> {
        let Self { size, field, repeat, elements, id, object, of_record, rules: texts } = self;
        let mut batch = match (elements, id, object, of_record) {
            (Some(elements), Some(id), None, Some(record)) => Batch::by_id(size, &field, &elements, &id, &record),
            (None, None, Some(object), Some(record)) => Batch::by_key(size, &field, &object, &record),
            (Some(elements), None, None, None) => Batch::in_order(size, &field, &elements),
            _ => {
                let what = "it has either elements, id and of-record, or object and of-record, or elements alone, which are in \
                            the order of the records";
                return Err(what.to_owned());
            }
        }
        .map_err(said)?;
        batch.rules = rules(&texts)?;
        Ok(if repeat { batch.repeat() } else { batch })
    }
}

impl RowsTable {
    fn read(self) -> Result<Rows, String> {
        let mut columns = Vec::new();
        for (name, source) in &self.columns {
            let source =
                source.as_str().ok_or_else(|| format!("columns.{name}: its source is a text, such as \"$.a\""))?;
            columns.push((name.as_str(), source));
        }
        let mut explode = Explode::new(self.each.iter().map(String::as_str), columns.iter().copied()).map_err(said)?;
        for column in &self.require {
            explode = explode.require(column).map_err(said)?;
        }
        let mode = match self.mode {
            None | Some(Mode::Append) => CrawlMode::Append,
            Some(Mode::Upsert) => CrawlMode::Upsert,
            Some(Mode::Delete) => CrawlMode::Delete,
            Some(Mode::Replace) => CrawlMode::Replace,
        };
        let names: Vec<&str> = explode.names().collect();
        let table = CrawlTable::new(self.table, names, mode);
        Ok(Rows { table, explode })
    }
}

fn rates<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<RateLimit>, D::Error> {
    let texts = Vec::<String>::deserialize(deserializer)?;
    texts.iter().map(|text| text.parse().map_err(de::Error::custom)).collect()
}

fn table<'de, D: Deserializer<'de>>(deserializer: D) -> Result<TableName, D::Error> {
    String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
}
