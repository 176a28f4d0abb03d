//! What a crawl is of: a TOML file.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::ops::{Range, RangeInclusive};
use std::path::{Path, PathBuf};
use std::time::Duration;

use bulk_core::crawl::{Batch, Pagination, RequestTemplate, Rule, Success};
use bulk_core::{Explode, LimiterOptions, Margin, RateLimit, Spread};
use bulk_pg::{CrawlMode, CrawlTable, TableName};
use jiff::Timestamp;
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
    /// Bytes of answers and rows that are in memory together.
    pub(crate) memory: u64,
    /// Bytes of an answer, at most.
    pub(crate) answer: Option<u64>,
    pub(crate) success: Success,
    pub(crate) pagination: Option<Pagination>,
    /// Pages of an answer, at most.
    pub(crate) max_pages: Option<usize>,
    /// Whether requests may be repeated that are perhaps carried out already.
    pub(crate) repeat: bool,
    pub(crate) batch: Option<Batch>,
    /// What becomes of the answers for records.
    pub(crate) rows: Vec<Rows>,
    /// Lists of what is to be deleted, once the rows are written.
    pub(crate) deletes: Vec<Deletes>,
    pub(crate) since: Option<Since>,
    pub(crate) after: Vec<String>,
    /// What of the file tells which calls there are and what their rows are.
    pub(crate) definition: String,
}

/// Where the records are.
#[derive(Clone)]
pub(crate) enum Input {
    Query(String),
    /// `-` is standard input.
    File(PathBuf),
    /// Those that `each` finds in the API's own list; what is no object becomes one with it as `name`.
    List {
        list: Box<List>,
        each: String,
        name: String,
    },
}

impl Input {
    pub(crate) fn is_stdin(&self) -> bool {
        matches!(self, Self::File(path) if path.as_os_str() == "-")
    }
}

/// A list that the API has, in one page or several.
#[derive(Clone)]
pub(crate) struct List {
    pub(crate) template: RequestTemplate,
    pub(crate) pagination: Option<Pagination>,
    /// Its pages, at most.
    pub(crate) max_pages: Option<usize>,
}

pub(crate) struct Deletes {
    pub(crate) list: List,
    pub(crate) rows: Rows,
}

/// How `{$since}` is written, which is from when on changes are asked for.
pub(crate) struct Since {
    format: SinceFormat,
    first: Option<String>,
    /// How much of the time before the last run is asked for again.
    pub(crate) slack: Duration,
}

#[derive(Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum SinceFormat {
    #[default]
    Unix,
    UnixMs,
    Rfc3339,
}

impl Since {
    /// As it stands in a request; the first time without a time.
    pub(crate) fn text(&self, since: Option<Timestamp>) -> String {
        if let (None, Some(first)) = (since, &self.first) {
            return first.clone();
        }
        let since = since.unwrap_or(Timestamp::UNIX_EPOCH);
        match self.format {
            SinceFormat::Unix => since.as_second().to_string(),
            SinceFormat::UnixMs => since.as_millisecond().to_string(),
            SinceFormat::Rfc3339 => since.to_string(),
        }
    }
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
    deletes: Vec<Spanned<DeletesTable>>,
    since: Option<Spanned<SinceTable>>,
    #[serde(default)]
    load: LoadTable,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct InputTable {
    query: Option<String>,
    file: Option<PathBuf>,
    url: Option<String>,
    headers: Option<BTreeMap<String, String>>,
    pages: Option<PagesTable>,
    each: Option<String>,
    #[serde(rename = "as")]
    name: Option<String>,
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
    #[serde(default)]
    repeat: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct LimitsTable {
    #[serde(default, deserialize_with = "rates")]
    rate: Vec<RateLimit>,
    #[serde(default, deserialize_with = "rates")]
    per_host: Vec<RateLimit>,
    margin: Option<String>,
    spread: Option<SpreadName>,
    #[serde(default)]
    adaptive: bool,
    concurrency: Option<usize>,
    memory: Option<String>,
    answer: Option<String>,
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
    #[serde(default)]
    nothing: Vec<String>,
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
    max: Option<usize>,
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
    #[serde(default)]
    may_miss: bool,
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

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct DeletesTable {
    url: String,
    headers: Option<BTreeMap<String, String>>,
    pages: Option<PagesTable>,
    #[serde(deserialize_with = "table")]
    table: TableName,
    #[serde(default)]
    each: Vec<String>,
    columns: toml::Table,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SinceTable {
    #[serde(default)]
    format: SinceFormat,
    first: Option<String>,
    slack: Option<String>,
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
    /// Bytes of rows that are committed together. Twice as many may wait.
    pub(crate) fn batch_bytes(&self) -> u64 {
        (self.memory / 16).min(8 << 20)
    }

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
        let since = file.since.map(|table| read(table, "since", line, SinceTable::read)).transpose()?;
        let definition = definition(text)?;
        if since.is_some() != definition.contains("{$since}") {
            return Err("[since] says how {$since} is written, which a url has: it has one of them alone".to_owned());
        }
        let request = file.request.get_ref();
        let deletes = file.deletes.into_iter().map(|table| read(table, "deletes", line, |table| table.read(request)));
        let deletes = deletes.collect::<Result<_, _>>()?;
        Ok(Self {
            name: file.name.filter(|name| !name.is_empty()).unwrap_or(name),
            input: read(file.input, "input", line, |table| table.read(request))?,
            deletes,
            since,
            definition,
            repeat: request.repeat,
            max_pages: file.pages.as_ref().and_then(|pages| pages.get_ref().max),
            template: read(file.request, "request", line, RequestTable::read)?,
            limits: limits.options,
            concurrency: limits.concurrency,
            memory: limits.memory,
            answer: limits.answer,
            success: file
                .success
                .map_or_else(|| Ok(Success::default()), |table| read(table, "success", line, SuccessTable::read))?,
            pagination: file.pages.map(|table| read(table, "pages", line, PagesTable::read)).transpose()?,
            batch: file.batch.map(|table| read(table, "batch", line, BatchTable::read)).transpose()?,
            rows,
            after: file.load.after,
        })
    }
}

/// The spec without what changes no request and no row, such as comments, limits, and when an answer is a success: a round
/// that is open can be gone on with by another one of the same definition.
fn definition(text: &str) -> Result<String, String> {
    let mut table: toml::Table = toml::from_str(text).map_err(said)?;
    for name in ["name", "limits", "load", "success"] {
        table.remove(name);
    }
    for (name, entries) in
        [("request", &["secrets", "repeat"][..]), ("batch", &["size", "may-miss"]), ("since", &["slack"])]
    {
        if let Some(toml::Value::Table(table)) = table.get_mut(name) {
            entries.iter().for_each(|entry| _ = table.remove(*entry));
        }
    }
    toml::to_string(&table).map_err(said)
}

fn said(error: impl Display) -> String {
    error.to_string()
}

impl InputTable {
    fn read(self, request: &RequestTable) -> Result<Input, String> {
        let Self { query, file, url, headers, pages, each, name } = self;
        let is_list = headers.is_some() || pages.is_some() || each.is_some() || name.is_some();
        match (query, file, url) {
            (Some(query), None, None) if !is_list => Ok(Input::Query(query)),
            (None, Some(file), None) if !is_list => Ok(Input::File(file)),
            (None, None, Some(url)) => Ok(Input::List {
                list: Box::new(request.list(&url, headers.as_ref(), pages)?),
                each: each.unwrap_or_else(|| "$[*]".to_owned()),
                name: name.unwrap_or_else(|| "id".to_owned()),
            }),
            _ => Err("it has either a query, or a file, or a url with headers, pages, each and as".to_owned()),
        }
    }
}

impl RequestTable {
    fn read(self) -> Result<RequestTemplate, String> {
        let mut template = self.template(&self.method, &self.url, &self.headers)?;
        if let Some(body) = self.body {
            if has_time(&body) {
                return Err("body: a time is written as a text here".to_owned());
            }
            let body: Value = serde_json::to_value(body).map_err(said)?;
            template = template.json(&body).map_err(said)?;
        }
        Ok(template)
    }

    /// A list of the same API: its headers are those of the other requests, unless it has its own.
    fn list(
        &self,
        url: &str,
        headers: Option<&BTreeMap<String, String>>,
        pages: Option<PagesTable>,
    ) -> Result<List, String> {
        let template = self.template("GET", url, headers.unwrap_or(&self.headers))?;
        let max_pages = pages.as_ref().and_then(|pages| pages.max);
        let pagination = pages.map(|pages| pages.read().map_err(|what| format!("pages: {what}"))).transpose()?;
        Ok(List { template, pagination, max_pages })
    }

    fn template(&self, method: &str, url: &str, headers: &BTreeMap<String, String>) -> Result<RequestTemplate, String> {
        let mut template = RequestTemplate::new(method, url).map_err(said)?;
        for (name, value) in headers {
            template = template.header(name, value).map_err(said)?;
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

impl DeletesTable {
    fn read(self, request: &RequestTable) -> Result<Deletes, String> {
        let Self { url, headers, pages, table, each, columns } = self;
        let list = request.list(&url, headers.as_ref(), pages)?;
        let rows = RowsTable { table, mode: Some(Mode::Delete), each, columns, require: Vec::new() };
        let rows = rows.read()?;
        match rows.explode.input_fields().first() {
            None => Ok(Deletes { list, rows }),
            Some(field) => Err(format!("no record is asked for here, so that there is no input.{field}")),
        }
    }
}

impl SinceTable {
    fn read(self) -> Result<Since, String> {
        let slack = self.slack.as_deref().map(arguments::time).transpose();
        let slack = slack.map_err(|error| format!("slack: {error}"))?.unwrap_or(Duration::from_secs(60));
        Ok(Since { format: self.format, first: self.first, slack })
    }
}

/// JSON has none.
fn has_time(value: &toml::Value) -> bool {
    match value {
        toml::Value::Datetime(_) => true,
        toml::Value::Array(values) => values.iter().any(has_time),
        toml::Value::Table(table) => table.values().any(has_time),
        _ => false,
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

/// What `[limits]` says.
struct Limits {
    options: LimiterOptions,
    concurrency: Option<usize>,
    memory: u64,
    answer: Option<u64>,
}

/// What is in memory together where a spec does not say.
const MEMORY: u64 = 256 << 20;
/// The least that makes sense: of rows alone some are to be committed together.
const LEAST_MEMORY: u64 = 1 << 20;

impl LimitsTable {
    fn read(self) -> Result<Limits, String> {
        let size = |name: &str, text: Option<&str>| {
            let size = text.map(arguments::size).transpose().map_err(|error| format!("{name}: {error}"))?;
            match size {
                Some(size) if size < LEAST_MEMORY => Err(format!("{name}: it must be 1MiB or more")),
                size => Ok(size),
            }
        };
        let memory = size("memory", self.memory.as_deref())?.unwrap_or(MEMORY);
        let answer = size("answer", self.answer.as_deref())?;
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
        Ok(Limits { options, concurrency: self.concurrency, memory, answer })
    }
}

impl SuccessTable {
    fn read(self) -> Result<Success, String> {
        let mut success = Success::default();
        if !self.status.is_empty() {
            success.statuses = statuses(&self.status)?;
        }
        success.rules = rules(&self.rules)?;
        success.lasting = rules(&self.lasting)?;
        success.nothing = statuses(&self.nothing)?;
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

fn statuses(texts: &[String]) -> Result<Vec<RangeInclusive<u16>>, String> {
    texts.iter().map(|text| status(text)).collect()
}

/// `404`, or `200-299`.
fn status(text: &str) -> Result<RangeInclusive<u16>, String> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let code = |text: &str| text.trim().parse().ok().filter(|code| (100..=599).contains(code));
    match (code(first), code(last)) {
        (Some(first), Some(last)) if first <= last => Ok(first..=last),
        _ => Err(format!("{text:?} is neither \"404\" nor \"200-299\"")),
    }
}

impl PagesTable {
    fn read(self) -> Result<Pagination, String> {
        let Self { link_header, next, cursor, parameter, first, last, until_empty, max: _ } = self;
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
        let Self { size, field, repeat, elements, id, object, of_record, rules: texts, may_miss } = self;
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
        (batch.rules, batch.may_miss) = (rules(&texts)?, may_miss);
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

#[cfg(test)]
mod tests {
    use super::*;

    const SPEC: &str = r#"
# A comment.
[input]
url = "https://api.test/objects?all_ids=true&modified_since={$since}"

[request]
url = "https://api.test/objects?id_set={id}"
headers = { X-Session = "{$session}" }
values = { session = "4711" }

[limits]
rate = ["25/s over 10s", "5000/h"]
margin = "50ms"

[success]
status = ["200-299", "304"]
nothing = ["404"]

[batch]
size = 25
field = "id"
elements = "$[*]"
id = "$.uri"
of-record = "/objects/{id}"
may-miss = true

[[rows]]
table = "object"
mode = "upsert"
columns = { uri = "$.uri", title = "$.title" }

[since]
slack = "5s"

[[deletes]]
url = "https://api.test/deleted?modified_since={$since}"
pages = { parameter = "page", last = "$.last_page" }
table = "object"
each = ["$.results[*]"]
columns = { uri = "$" }
"#;

    fn parse(text: &str) -> Result<Spec, String> {
        Spec::parse(text, "objects".to_owned())
    }

    #[test]
    fn a_spec_is_read() {
        let spec = parse(SPEC).unwrap();
        assert_eq!(spec.name, "objects");
        assert!(matches!(&spec.input, Input::List { each, name, .. } if each == "$[*]" && name == "id"));
        assert_eq!(spec.limits.limits.iter().map(ToString::to_string).collect::<Vec<_>>(), ["25/s over 10s", "5000/h"]);
        assert_eq!((spec.memory, spec.answer, spec.batch_bytes()), (256 << 20, None, 8 << 20));
        let small = parse(&SPEC.replace("[limits]", "[limits]\nmemory = \"16MiB\"\nanswer = \"1MiB\"")).unwrap();
        assert_eq!((small.memory, small.answer, small.batch_bytes()), (16 << 20, Some(1 << 20), 1 << 20));
        assert_eq!(small.definition, spec.definition);
        assert_eq!(spec.limits.margin, Margin::Within(Duration::from_millis(50)));
        assert_eq!(spec.success.statuses, [200..=299, 304..=304]);
        assert_eq!(spec.success.nothing, [404..=404]);
        assert_eq!(spec.batch.as_ref().map(|batch| (batch.size, batch.may_miss)), Some((25, true)));
        assert_eq!(spec.rows[0].table.columns, ["title", "uri"]);
        assert_eq!(spec.rows[0].table.mode, CrawlMode::Upsert);
        assert_eq!(spec.deletes[0].rows.table.mode, CrawlMode::Delete);
        let since = spec.since.unwrap();
        let at: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        assert_eq!((since.text(None), since.text(Some(at))), ("0".to_owned(), "1767225600".to_owned()));
        assert_eq!(since.slack, Duration::from_secs(5));
    }

    #[test]
    fn what_changes_no_call_is_no_part_of_the_definition() {
        let definition = |text: &str| parse(text).unwrap().definition;
        let was = definition(SPEC);
        let others = [
            SPEC.replace("# A comment.", ""),
            SPEC.replace("5000/h", "100/h"),
            SPEC.replace("[since]", "[load]\nafter = [\"ANALYZE\"]\n[since]"),
            SPEC.replace("\"404\"", "\"410\"").replace("size = 25", "size = 50").replace("\"5s\"", "\"6s\""),
            format!("name = \"x\"\n{SPEC}"),
        ];
        for same in others {
            assert_eq!(definition(&same), was, "{same}");
        }
        for other in
            [SPEC.replace("id_set", "ids"), SPEC.replace("$.title", "$.name"), SPEC.replace("deleted?", "gone?")]
        {
            assert_ne!(definition(&other), was, "{other}");
        }
    }

    #[test]
    fn what_makes_no_sense_is_named_with_its_line() {
        for (was, is, said) in [
            ("table = \"object\"\nmode", "tabel = \"object\"\nmode", "line 28: unknown field `tabel`"),
            ("size = 25\n", "", "line 19: missing field `size`"),
            ("$.uri\"\nof", "$.[\"\nof", "line 19, [batch]: \"$.[\": it is no JSONPath"),
            ("\"304\"", "\"99\"", "line 15, [success]: \"99\" is neither \"404\" nor \"200-299\""),
            ("values = { session = \"4711\" }", "secrets = { session = \"4711\" }", "a secret is \"env:VARIABLE\""),
            ("[since]\nslack = \"5s\"\n", "", "{$since}"),
            ("rate = [\"25/s over 10s\", \"5000/h\"]", "rate = []", "line 11, [limits]: it says no rate"),
            (
                "url = \"https://api.test/objects?all",
                "query = \"SELECT 1\"\nurl = \"https://api.test/objects?all",
                "line 3, [input]: it has either",
            ),
            ("last = ", "lost = ", "unknown field `lost`"),
            (
                "{ uri = \"$\" }",
                "{ uri = \"input.uri\" }",
                "[deletes]: no record is asked for here, so that there is no input.uri",
            ),
        ] {
            assert!(SPEC.contains(was), "{was}");
            let error = parse(&SPEC.replacen(was, is, 1)).err().unwrap();
            assert!(error.contains(said), "{said:?} is not in: {error}");
        }
    }
}
