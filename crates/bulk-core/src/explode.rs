//! Rows out of JSON.

mod source;

use std::fmt::{self, Display};
use std::ops::Deref;
use std::sync::Arc;

use serde_json::Value;
use serde_json_path::JsonPath;
use source::{Origin, Take};

/// How rows are read out of a response: which of its elements become rows, and what their columns are.
///
/// Paths are JSONPath (RFC 9535). **Elements**: each path of `each` finds elements in the one that the path before it has
/// found, the first of them in the response; what the last one finds are the rows. Without any, the response is the one
/// element, and so the one row. **Columns** are named, and each has a source:
///
/// | source | is |
/// |---|---|
/// | `$.a.b` | what the path finds in the element; `$` alone is all of it |
/// | `$1.a`, `$2.a` | the same in the element that the first, the second path of `each` has found |
/// | `response.a`, `response` | the same in the response |
/// | `input.a`, `input['a b']` | the same in the input record |
/// | `key`, `key1` | the name that the element, or that of the first path, has in its object; in an array its place, from 0 |
/// | `[$.a[*].b]` | whatever a path finds, however much, as an array |
///
/// # What is there and what is not
///
/// - Where the path finds nothing, the row has no value ([`None`]), or a [fault](ExplodedRow::fault) if the column is
///   [required](Self::require).
/// - `null`, `""`, `[]` and `{}` are values, each as it is. Who must tell what is missing from `null` also behind a place
///   that keeps them alike (such as a column of a table) takes `[$.a]`: `[]` and `[null]`.
/// - A path that finds more than one value is a fault, but in brackets.
///
/// Objects and arrays are values as well, whole. Numbers are as the response has them: `serde_json` keeps their text with
/// the feature `crawl`, so that a float never stands between (`0.10`, 20 digits, `1e400`). Only filters compare numbers as
/// floats (`$[?@.id == 9007199254740993]` takes its neighbours, too).
///
/// ```
/// use bulk_core::Explode;
/// use serde_json::json;
///
/// let explode = Explode::new(
///     ["$.Response.activities[*]", "$.values.*"],
///     [
///         ("character_id", "input.character_id"),
///         ("activity_hash", "$1.activityHash"),
///         ("stat_id", "key"),
///         ("stat", "$"),
///     ],
/// )?;
/// let input = json!({"character_id": 230584300_u64});
/// let response = json!({"Response": {"activities": [
///     {"activityHash": 3631_u32, "values": {"kills": {"value": 0}, "deaths": {"value": 2}}},
///     {"activityHash": 4_u32, "values": {}},
/// ]}});
/// let rows: Vec<_> = explode.rows(&input, &response)?.map(|row| row.to_json()).collect();
/// assert_eq!(
///     rows,
///     [
///         json!({"character_id": 230584300_u64, "activity_hash": 3631_u32, "stat_id": "deaths", "stat": {"value": 2}}),
///         json!({"character_id": 230584300_u64, "activity_hash": 3631_u32, "stat_id": "kills", "stat": {"value": 0}}),
///     ]
/// );
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// (The members of an object come in the order in which [`serde_json::Map`] has them, by default that of their names.)
#[derive(Clone, Debug)]
pub struct Explode {
    each: Vec<JsonPath>,
    columns: Vec<Column>,
}

#[derive(Clone, Debug)]
struct Column {
    name: String,
    origin: Origin,
    take: Take,
    /// `None` is all of it.
    path: Option<JsonPath>,
    /// The member of the origin that the path begins with, where it begins with one.
    member: Option<String>,
    is_required: bool,
}

/// A specification of rows that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidExplode {
    /// A path of `each` is none.
    #[error("{path:?} is no path to elements: {what}")]
    Each {
        /// The path.
        path: String,
        /// What is wrong with it.
        what: String,
    },
    /// A column's source is none.
    #[error("{source_text:?} is no source for the column {column}: {what}")]
    Source {
        /// The column.
        column: String,
        /// Its source.
        source_text: String,
        /// What is wrong with it.
        what: String,
    },
    /// A column is there twice, or is to be required and is not there.
    #[error("the column {column} {what}")]
    Column {
        /// The column.
        column: String,
        /// Which of the two.
        what: &'static str,
    },
}

/// JSON whose arrays and objects are nested deeper than [`Explode::MAX_DEPTH`]. No row is read out of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the {what} is nested deeper than {max}", max = Explode::MAX_DEPTH)]
pub struct TooDeep {
    what: &'static str,
}

impl Explode {
    /// How deep JSON may be nested: as deep as `serde_json` parses it by default.
    pub const MAX_DEPTH: usize = 127;

    /// A specification out of the paths to the elements, from the outermost on, and the columns with their sources.
    ///
    /// # Errors
    ///
    /// [`InvalidExplode`] says which of them cannot be used, and why.
    pub fn new<E, C, N, S>(each: E, columns: C) -> Result<Self, InvalidExplode>
    where
        E: IntoIterator<Item: AsRef<str>>,
        C: IntoIterator<Item = (N, S)>,
        N: Into<String>,
        S: AsRef<str>,
    {
        let path = |path: E::Item| {
            let path = path.as_ref();
            JsonPath::parse(path)
                .map_err(|error| InvalidExplode::Each { path: path.to_owned(), what: error.to_string() })
        };
        let each = each.into_iter().map(path).collect::<Result<Vec<_>, _>>()?;
        let mut read: Vec<Column> = Vec::new();
        for (name, source) in columns {
            let (name, source) = (name.into(), source.as_ref());
            if read.iter().any(|column| column.name == name) {
                return Err(InvalidExplode::Column { column: name, what: "is there twice" });
            }
            match source::parse(source, each.len()) {
                Ok((origin, take, path)) => {
                    let member = source::first_member(source);
                    read.push(Column { name, origin, take, path, member, is_required: false });
                }
                Err(what) => {
                    return Err(InvalidExplode::Source { column: name, source_text: source.to_owned(), what });
                }
            }
        }
        Ok(Self { each, columns: read })
    }

    /// Has a row without a value for this column be a [fault](ExplodedRow::fault). `null` is a value.
    ///
    /// # Errors
    ///
    /// [`InvalidExplode::Column`] if there is no such column.
    pub fn require(mut self, column: &str) -> Result<Self, InvalidExplode> {
        let found = self.columns.iter_mut().find(|other| other.name == column);
        let what = "is to be required, and is not there";
        found.ok_or_else(|| InvalidExplode::Column { column: column.to_owned(), what })?.is_required = true;
        Ok(self)
    }

    /// The names of the columns, in the order of a row's values.
    pub fn names(&self) -> impl ExactSizeIterator<Item = &str> {
        self.columns.iter().map(|column| column.name.as_str())
    }

    /// The members of the input record that columns are of, each once: `id` for `input.id` and `input['id'].x`. What a path finds
    /// otherwise (`input.*`) is not among them.
    pub fn input_fields(&self) -> Vec<&str> {
        let of_input = self.columns.iter().filter(|column| column.origin == Origin::Input);
        let mut fields: Vec<&str> = of_input.filter_map(|column| column.member.as_deref()).collect();
        fields.sort_unstable();
        fields.dedup();
        fields
    }

    /// The rows of a response, or of a page of one, to this input record, one after the other. Nothing is copied but what
    /// brackets collect.
    ///
    /// # Errors
    ///
    /// [`TooDeep`] of either.
    pub fn rows<'a>(&'a self, input: &'a Value, response: &'a Value) -> Result<ExplodedRows<'a>, TooDeep> {
        for (value, what) in [(input, "input record"), (response, "response")] {
            if is_deeper(value, Self::MAX_DEPTH) {
                return Err(TooDeep { what });
            }
        }
        let values = vec![Ok(None); self.columns.len()];
        let mut rows = ExplodedRows {
            explode: self,
            input,
            response,
            open: Vec::new(),
            found: Vec::new(),
            values,
            is_begun: false,
        };
        rows.take_values(&[Origin::Input, Origin::Element(0)]);
        Ok(rows)
    }
}

/// Whether arrays and objects are nested deeper than `max`. Without recursion, whatever they are.
fn is_deeper(value: &Value, max: usize) -> bool {
    let mut open = vec![(value, 1_usize)];
    while let Some((value, depth)) = open.pop() {
        match value {
            Value::Array(_) | Value::Object(_) if depth > max => return true,
            Value::Array(items) => {
                open.extend(items.iter().filter(|item| is_nested(item)).map(|item| (item, depth + 1)))
            }
            Value::Object(members) => {
                open.extend(members.values().filter(|item| is_nested(item)).map(|item| (item, depth + 1)));
            }
            _ => {}
        }
    }
    false
}

fn is_nested(value: &Value) -> bool {
    matches!(value, Value::Array(_) | Value::Object(_))
}

/// An element, and the name or the place that it has in the one around it.
#[derive(Clone, Debug)]
struct Element<'a> {
    value: &'a Value,
    key: Option<Value>,
}

/// A value of what is exploded, or one that was made of several, which all rows of its origin share.
#[derive(Clone, Debug)]
enum Part<'a> {
    Found(&'a Value),
    Made(Arc<Value>),
}

impl Deref for Part<'_> {
    type Target = Value;

    fn deref(&self) -> &Value {
        match self {
            Self::Found(value) => value,
            Self::Made(value) => value,
        }
    }
}

impl Part<'_> {
    fn made(value: Value) -> Self {
        Self::Made(Arc::new(value))
    }
}

type Taken<'a> = Result<Option<Part<'a>>, RowFaultKind>;

/// The rows of a response. Made by [`Explode::rows`].
#[derive(Debug)]
pub struct ExplodedRows<'a> {
    explode: &'a Explode,
    input: &'a Value,
    response: &'a Value,
    /// The elements that are still to come, of each path that has been taken.
    open: Vec<std::vec::IntoIter<Element<'a>>>,
    /// Those that the row in hand is in, of each path.
    found: Vec<Element<'a>>,
    values: Vec<Taken<'a>>,
    is_begun: bool,
}

impl<'a> ExplodedRows<'a> {
    /// Takes the columns of these origins anew.
    fn take_values(&mut self, origins: &[Origin]) {
        let Self { explode, input, response, found, values, .. } = self;
        for (column, value) in explode.columns.iter().zip(values) {
            if !origins.contains(&column.origin) {
                continue;
            }
            let element = |level: usize| level.checked_sub(1).and_then(|place| found.get(place));
            *value = match column.origin {
                Origin::Input => column.take(input),
                Origin::Element(0) => column.take(response),
                Origin::Element(level) => element(level).map_or(Ok(None), |element| column.take(element.value)),
                Origin::Key(level) => Ok(element(level).and_then(|element| element.key.clone()).map(Part::made)),
            };
        }
    }

    /// What the path of this place finds in a value.
    fn elements(&self, place: usize, value: &'a Value) -> std::vec::IntoIter<Element<'a>> {
        let Some(path) = self.explode.each.get(place) else { return Vec::new().into_iter() };
        let has_key = self.explode.columns.iter().any(|column| column.origin == Origin::Key(place + 1));
        let elements: Vec<Element<'a>> = if has_key {
            let keyed = |node: serde_json_path::LocatedNode<'a>| Element {
                value: node.node(),
                key: node.location().last().map(|key| match (key.as_name(), key.as_index()) {
                    (Some(name), _) => Value::from(name),
                    (None, index) => index.map_or(Value::Null, Value::from),
                }),
            };
            path.query_located(value).into_iter().map(keyed).collect()
        } else {
            path.query(value).into_iter().map(|value| Element { value, key: None }).collect()
        };
        elements.into_iter()
    }

    fn row(&self) -> ExplodedRow<'a> {
        let mut fault = None;
        let mut value = |(taken, column): (&Taken<'a>, &Column)| match taken {
            Ok(None) if column.is_required => {
                fault.get_or_insert(RowFault { column: column.name.clone(), kind: RowFaultKind::Missing });
                None
            }
            Ok(value) => value.clone(),
            Err(kind) => {
                fault.get_or_insert(RowFault { column: column.name.clone(), kind: *kind });
                None
            }
        };
        let values = self.values.iter().zip(&self.explode.columns).map(&mut value).collect();
        ExplodedRow { explode: self.explode, values, fault }
    }
}

impl Column {
    fn take<'a>(&self, value: &'a Value) -> Taken<'a> {
        let Some(path) = &self.path else {
            return Ok(Some(match self.take {
                Take::One => Part::Found(value),
                Take::All => Part::made(Value::Array(vec![value.clone()])),
            }));
        };
        let found = path.query(value);
        match self.take {
            Take::All => Ok(Some(Part::made(found.into_iter().cloned().collect()))),
            Take::One if found.len() > 1 => Err(RowFaultKind::Several(found.len())),
            Take::One => Ok(found.first().map(Part::Found)),
        }
    }
}

impl<'a> Iterator for ExplodedRows<'a> {
    type Item = ExplodedRow<'a>;

    fn next(&mut self) -> Option<ExplodedRow<'a>> {
        if !self.is_begun {
            self.is_begun = true;
            if self.explode.each.is_empty() {
                return Some(self.row());
            }
            self.open.push(self.elements(0, self.response));
        }
        loop {
            let element = self.open.last_mut()?.next();
            let Some(element) = element else {
                self.open.pop();
                continue;
            };
            let level = self.open.len();
            self.found.truncate(level - 1);
            let value = element.value;
            self.found.push(element);
            self.take_values(&[Origin::Element(level), Origin::Key(level)]);
            if level == self.explode.each.len() {
                return Some(self.row());
            }
            self.open.push(self.elements(level, value));
        }
    }
}

/// A row.
#[derive(Clone, Debug)]
pub struct ExplodedRow<'a> {
    explode: &'a Explode,
    values: Vec<Option<Part<'a>>>,
    fault: Option<RowFault>,
}

impl ExplodedRow<'_> {
    /// The values, in the order of the [columns](Explode::names); `None` where there is none.
    pub fn values(&self) -> impl ExactSizeIterator<Item = Option<&Value>> + Clone {
        self.values.iter().map(Option::as_deref)
    }

    /// Why it is none that the specification asks for: the first column of which that is so. The other values are there.
    pub fn fault(&self) -> Option<&RowFault> {
        self.fault.as_ref()
    }

    /// The row as an object, without the columns that have no value.
    pub fn to_json(&self) -> Value {
        let pairs = self.explode.names().zip(self.values());
        pairs.filter_map(|(name, value)| Some((name.to_owned(), value?.clone()))).collect()
    }
}

/// What is wrong with a row.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RowFault {
    /// The column.
    pub column: String,
    /// What is wrong with it.
    pub kind: RowFaultKind,
}

/// What is wrong with a column of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RowFaultKind {
    /// It is [required](Explode::require), and its path finds nothing.
    Missing,
    /// Its path finds so many values, where there can be one.
    Several(usize),
}

impl Display for RowFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            RowFaultKind::Missing => write!(f, "nothing is found for the column {}, which is required", self.column),
            RowFaultKind::Several(count) => {
                write!(f, "{count} values are found for the column {}, which takes one", self.column)
            }
        }
    }
}

impl std::error::Error for RowFault {}
