use std::collections::BTreeMap;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;
use url::Url;

use super::SpecError;

/// What stays as it is in a path or a query (RFC 3986, section 2.3): all else is one value's, and no separator.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
/// What a secret is replaced by.
const SHOWN: &str = "…";
/// Shorter ones are no secrets unless they are named so.
const SHORTEST: usize = 6;

/// What is requested for a record: a URL, headers and a body with places for its fields.
///
/// `{field}` stands for a field of the record, `{a.b}` for one of an object in it, `{$name}` for a [value](Self::value) or
/// a [secret](Self::secret) of the crawl; `{{` and `}}` are braces. What fields have is encoded by the place where they
/// stand: in a path and a query all that is not a letter, a digit or one of `-._~`, so that no value is ever a separator.
/// Texts, numbers and booleans can stand there; a record without the field, or with something else in it, is no request,
/// and neither is one with an empty value in the path, or one that makes a segment of it `.` or `..`.
///
/// Fields cannot stand before the path, since keys and tokens are meant for one server.
///
/// ```
/// use bulk_core::crawl::RequestTemplate;
///
/// let template = RequestTemplate::get("https://api.example.org/{kind}/{id}?lang={$language}")?
///     .value("language", "en")
///     .header("x-api-key", "{$key}")?
///     .secret("key", "4711");
/// # Ok::<(), bulk_core::crawl::SpecError>(())
/// ```
#[derive(Clone)]
pub struct RequestTemplate {
    method: Method,
    url: Text,
    headers: Vec<(HeaderName, Text)>,
    body: Option<Node>,
    values: BTreeMap<String, String>,
    secrets: BTreeMap<String, String>,
}

/// A text with places for values.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Text(Vec<Part>);

#[derive(Clone, Debug, PartialEq)]
enum Part {
    Literal(String),
    Field(String),
    Variable(String),
}

/// A JSON body, in which strings have places for values.
#[derive(Clone, Debug)]
enum Node {
    Text(Text),
    Array(Vec<Node>),
    Object(Vec<(String, Node)>),
    Other(Value),
}

/// A request, made of one record or of several.
#[derive(Clone, Debug)]
pub(super) struct Prepared {
    pub(super) method: Method,
    pub(super) url: Url,
    pub(super) headers: HeaderMap,
    pub(super) body: Option<Bytes>,
    /// Method, URL and body as they may be shown.
    pub(super) shown: String,
}

/// How a field of several records stands in one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Several {
    /// All values, with a comma between them.
    Joined,
    /// In a query the pair that has it, once for each value.
    Repeated,
}

/// The records of one request, and which field of them differs.
#[derive(Clone, Copy)]
pub(super) struct Records<'a> {
    pub(super) records: &'a [&'a Value],
    pub(super) differing: Option<(&'a str, Several)>,
}

impl RequestTemplate {
    /// A `GET`.
    ///
    /// # Errors
    ///
    /// As [`new`](Self::new).
    pub fn get(url: &str) -> Result<Self, SpecError> {
        Self::new("GET", url)
    }

    /// A request by this method.
    ///
    /// # Errors
    ///
    /// If the method or the braces of the URL are none, if a field stands before its path, if it is not `http` or `https`, or
    /// if it has no server, a backslash, a control character or a fragment.
    pub fn new(method: &str, url: &str) -> Result<Self, SpecError> {
        let method = method.parse().map_err(|_| SpecError::new(method, "it is no method of HTTP"))?;
        let text = Text::parse(url)?;
        let mut parts = text.0.iter();
        match parts.next() {
            Some(Part::Literal(begin)) => {
                let rest = begin.strip_prefix("http://").or_else(|| begin.strip_prefix("https://"));
                let rest = rest.ok_or_else(|| SpecError::new(url, "it does not begin with http:// or https://"))?;
                // Url would take what follows for the server.
                if rest.starts_with('/') {
                    return Err(SpecError::new(url, "no server stands before the path"));
                }
                if text.0.len() > 1 && !rest.contains(['/', '?']) {
                    return Err(SpecError::new(url, "a place for a value stands before the path"));
                }
            }
            // The base of all URLs, from a configuration.
            Some(Part::Variable(_)) => match parts.next() {
                None => {}
                Some(Part::Literal(rest)) if rest.starts_with(['/', '?']) => {}
                Some(_) => return Err(SpecError::new(url, "behind the base stands neither \"/\" nor \"?\"")),
            },
            _ => return Err(SpecError::new(url, "it does not begin with http:// or https://")),
        }
        if url.contains('#') {
            return Err(SpecError::new(url, "a fragment is not sent"));
        }
        // Url leaves out the one and takes the other for a slash.
        if url.contains(|char: char| char.is_control() || char == '\\') {
            return Err(SpecError::new(url, "a control character or a backslash stands in it"));
        }
        let (values, secrets) = (BTreeMap::new(), BTreeMap::new());
        Ok(Self { method, url: text, headers: Vec::new(), body: None, values, secrets })
    }

    /// The same with this header, whose value may have places. All headers are taken for secrets: none is ever shown.
    ///
    /// # Errors
    ///
    /// If the name cannot be one, or the braces of the value are none.
    pub fn header(mut self, name: &str, value: &str) -> Result<Self, SpecError> {
        let parsed = name.parse().map_err(|_| SpecError::new(name, "it is no name of a header"))?;
        self.headers.push((parsed, Text::parse(value)?));
        Ok(self)
    }

    /// The same with this JSON as the body. Strings in it may have places; one that is nothing but `{field}` stands for the
    /// field's value whatever its type, and in a batch for the array of all values.
    ///
    /// # Errors
    ///
    /// If the braces of a string are none.
    pub fn json(mut self, body: &Value) -> Result<Self, SpecError> {
        self.body = Some(Node::parse(body, 0)?);
        Ok(self)
    }

    /// What `{$name}` stands for. It may be shown; at the beginning of the URL it is the base, and stands as it is.
    #[must_use]
    pub fn value(mut self, name: &str, value: &str) -> Self {
        self.values.insert(name.to_owned(), value.to_owned());
        self
    }

    /// What `{$name}` stands for, and is shown in no message, key, or quarantined request.
    #[must_use]
    pub fn secret(mut self, name: &str, value: &str) -> Self {
        self.secrets.insert(name.to_owned(), value.to_owned());
        self
    }

    /// Where its URLs begin, as far as no place for a value follows; empty if that is a secret.
    pub fn base(&self) -> &str {
        match self.url.0.first() {
            Some(Part::Literal(begin)) => begin,
            Some(Part::Variable(name)) => self.values.get(name).map_or("", String::as_str),
            _ => "",
        }
    }

    /// Whether it was given any secret.
    pub fn has_secrets(&self) -> bool {
        !self.secrets.is_empty()
    }

    /// The fields of records that it has places for, each once: `id` for `{id}`.
    pub fn fields(&self) -> Vec<&str> {
        let mut fields: Vec<&str> = self.url.fields().collect();
        fields.extend(self.headers.iter().flat_map(|(_, value)| value.fields()));
        if let Some(body) = &self.body {
            body.fields(&mut fields);
        }
        fields.sort_unstable();
        fields.dedup();
        fields
    }

    /// Whether all variables have values.
    pub(super) fn check(&self) -> Result<(), SpecError> {
        let mut texts: Vec<&Text> = self.headers.iter().map(|(_, value)| value).collect();
        texts.push(&self.url);
        if let Some(body) = &self.body {
            body.texts(&mut texts);
        }
        for part in texts.into_iter().flat_map(|text| &text.0) {
            if let Part::Variable(name) = part
                && !self.values.contains_key(name)
                && !self.secrets.contains_key(name)
            {
                return Err(SpecError::new(&format!("{{${name}}}"), "nothing says what it stands for"));
            }
        }
        Ok(())
    }

    /// The text without secrets that it could have from a request, whole or cut off at its end, however they are written.
    pub(super) fn hide(&self, headers: &HeaderMap, text: &str) -> String {
        let mut plain: Vec<String> = self.secrets.values().cloned().collect();
        for value in headers.values().filter(|value| value.is_sensitive()) {
            let value = String::from_utf8_lossy(value.as_bytes());
            // Such as the token behind its scheme, and each value of a cookie. Of what is not named a secret, shorter ones are
            // none, and stand in any text.
            let parts = value.split([' ', ',', ';', '=', '"']).chain([&*value]);
            plain.extend(parts.filter(|part| part.len() >= SHORTEST).map(str::to_owned));
        }
        let mut secrets: Vec<String> = plain.iter().flat_map(|secret| written(secret)).collect();
        secrets.retain(|secret| !secret.is_empty());
        // What holds another one goes first.
        secrets.sort_unstable_by(|one, other| other.len().cmp(&one.len()).then_with(|| one.cmp(other)));
        secrets.dedup();
        let mut text = secrets.iter().fold(text.to_owned(), |text, secret| match text.contains(secret) {
            true => text.replace(secret, SHOWN),
            false => text,
        });
        // The beginning of one, where the text was cut.
        let cut = secrets.iter().filter_map(|secret| {
            let ends = (SHORTEST..secret.len()).rev().filter_map(|end| secret.get(..end));
            ends.into_iter().find(|part| text.ends_with(part)).map(str::len)
        });
        if let Some(cut) = cut.max() {
            text.truncate(text.len() - cut);
            text.push_str(SHOWN);
        }
        text
    }

    /// The request for these records.
    ///
    /// # Errors
    ///
    /// Why there is none.
    pub(super) fn fill(&self, records: Records<'_>) -> Result<Prepared, String> {
        let (text, shown) = (self.url(records, false)?, self.url(records, true)?);
        // Url resolves such segments, also encoded ones, and a value must not lead out of its place.
        let path = text.split('?').next().unwrap_or_default();
        let path = path.split_once("://").map_or(path, |(_, rest)| rest);
        for segment in path.split('/').skip(1) {
            if matches!(segment, "." | "..") {
                return Err(format!("a segment of its path is {segment:?}"));
            }
        }
        let url = Url::parse(&text).map_err(|error| format!("it makes no URL: {error}"))?;
        // Such as by `%2e` behind a value that is a dot.
        let (written, understood) = (path.split('/').skip(1).count().max(1), url.path_segments().map(Iterator::count));
        if understood != Some(written) {
            return Err(format!("its path is understood as {:?}", url.path()));
        }
        // It would be shown.
        if !url.username().is_empty() || url.password().is_some() {
            return Err("its URL has a user or a password, which belong into a header".to_owned());
        }
        let mut headers = HeaderMap::new();
        for (name, value) in &self.headers {
            let value = self.text(value, records, false)?;
            let mut value =
                HeaderValue::from_str(&value).map_err(|_| format!("the header {name} cannot have its value"))?;
            value.set_sensitive(true);
            headers.append(name, value);
        }
        let mut shown = format!("{} {shown}", self.method);
        let body = match &self.body {
            None => None,
            Some(body) => {
                headers.entry(CONTENT_TYPE).or_insert(HeaderValue::from_static("application/json"));
                shown.push(' ');
                shown.push_str(&self.node(body, records, true)?.to_string());
                Some(Bytes::from(self.node(body, records, false)?.to_string()))
            }
        };
        Ok(Prepared { method: self.method.clone(), url, headers, body, shown })
    }

    fn url(&self, records: Records<'_>, is_shown: bool) -> Result<String, String> {
        let mut url = String::new();
        let mut parts = self.url.0.iter();
        // The base.
        if let Some(Part::Variable(name)) = self.url.0.first() {
            parts.next();
            let base = self.variable(name, false)?;
            let base = base.trim().trim_end_matches('/');
            // Without a server in it, Url would take what follows for one.
            let rest = base.strip_prefix("http://").or_else(|| base.strip_prefix("https://"));
            if rest.is_none_or(|rest| rest.starts_with(['/', '\\'])) {
                return Err(format!("the base {{${name}}} does not begin with http:// or https:// and a server"));
            }
            match is_shown {
                true => url.push_str(self.variable(name, true)?.trim_end_matches('/')),
                false => url.push_str(base),
            }
        }
        // A place in the path, and the pairs of the query.
        let mut pairs: Vec<Vec<Part>> = Vec::new();
        for part in parts {
            match part {
                Part::Literal(literal) => {
                    let mut literal = literal.as_str();
                    if pairs.is_empty() {
                        let (path, query) =
                            literal.split_once('?').map_or((literal, None), |(path, query)| (path, Some(query)));
                        url.push_str(path);
                        let Some(query) = query else { continue };
                        literal = query;
                        pairs.push(Vec::new());
                    }
                    for (number, piece) in literal.split('&').enumerate() {
                        if number > 0 {
                            pairs.push(Vec::new());
                        }
                        if let Some(pair) = pairs.last_mut() {
                            pair.push(Part::Literal(piece.to_owned()));
                        }
                    }
                }
                place => match pairs.last_mut() {
                    Some(pair) => pair.push(place.clone()),
                    None => {
                        let value = self.place(place, records, is_shown)?;
                        // `/items/` is all of them. And of several, each has to say which one it is.
                        let is_empty = |field: &str| {
                            let values = self.values(field, records).unwrap_or_default();
                            values.into_iter().any(|value| value.as_str() == Some(""))
                        };
                        if value.is_empty() || matches!(place, Part::Field(field) if is_empty(field)) {
                            return Err("a value in its path is empty".to_owned());
                        }
                        url.push_str(&value);
                    }
                },
            }
        }
        let mut between = '?';
        for pair in pairs {
            let repeated = records.differing.filter(|(_, several)| *several == Several::Repeated);
            let repeats = repeated.is_some_and(|(field, _)| pair.contains(&Part::Field(field.to_owned())));
            let sets: Vec<Records<'_>> = match repeats {
                true => records.records.chunks(1).map(|records| Records { records, differing: None }).collect(),
                false => vec![records],
            };
            for records in sets {
                url.push(between);
                between = '&';
                for part in &pair {
                    url.push_str(&self.place(part, records, is_shown)?);
                }
            }
        }
        Ok(url)
    }

    /// A part of the URL behind its base.
    fn place(&self, part: &Part, records: Records<'_>, is_shown: bool) -> Result<String, String> {
        let encoded = |text: &str| utf8_percent_encode(text, RESERVED).to_string();
        Ok(match part {
            Part::Literal(literal) => literal.clone(),
            Part::Variable(name) if is_shown && self.secrets.contains_key(name) => self.variable(name, true)?,
            Part::Variable(name) => encoded(&self.variable(name, false)?),
            Part::Field(field) => {
                let values = self.values(field, records)?;
                let texts: Result<Vec<_>, _> = values.iter().map(|value| Ok(encoded(&plain(field, value)?))).collect();
                texts.map_err(|what: String| what)?.join(",")
            }
        })
    }

    fn text(&self, text: &Text, records: Records<'_>, is_shown: bool) -> Result<String, String> {
        let mut filled = String::new();
        for part in &text.0 {
            match part {
                Part::Literal(literal) => filled.push_str(literal),
                Part::Variable(name) => filled.push_str(&self.variable(name, is_shown)?),
                Part::Field(field) => {
                    let values = self.values(field, records)?;
                    let texts: Result<Vec<_>, String> = values.iter().map(|value| plain(field, value)).collect();
                    filled.push_str(&texts?.join(","));
                }
            }
        }
        Ok(filled)
    }

    fn node(&self, node: &Node, records: Records<'_>, is_shown: bool) -> Result<Value, String> {
        Ok(match node {
            Node::Other(value) => value.clone(),
            Node::Text(text) => match text.0.as_slice() {
                [Part::Field(field)] => {
                    let values = self.values(field, records)?;
                    match records.differing {
                        Some((differing, _)) if differing == field => values.into_iter().cloned().collect(),
                        _ => values.first().map_or(Value::Null, |value| (*value).clone()),
                    }
                }
                _ => Value::String(self.text(text, records, is_shown)?),
            },
            Node::Array(nodes) => {
                let nodes = nodes.iter().map(|node| self.node(node, records, is_shown));
                Value::Array(nodes.collect::<Result<_, _>>()?)
            }
            Node::Object(members) => {
                let members =
                    members.iter().map(|(name, node)| Ok((name.clone(), self.node(node, records, is_shown)?)));
                Value::Object(members.collect::<Result<_, String>>()?)
            }
        })
    }

    fn variable(&self, name: &str, is_shown: bool) -> Result<String, String> {
        match (self.secrets.get(name), self.values.get(name)) {
            (Some(_), _) if is_shown => Ok(format!("{{${name}}}")),
            (Some(value), _) | (None, Some(value)) => Ok(value.clone()),
            (None, None) => Err(format!("nothing says what {{${name}}} stands for")),
        }
    }

    /// What the records have there: each of them its own if it is the field in which they differ, else one for all.
    fn values<'a>(&self, field: &str, records: Records<'a>) -> Result<Vec<&'a Value>, String> {
        let differs = records.differing.is_some_and(|(differing, _)| differing == field);
        let count = if differs { records.records.len() } else { 1 };
        let records = records.records.iter().take(count);
        records.map(|record| at(record, field).ok_or_else(|| format!("the field {field} is missing"))).collect()
    }
}

impl std::fmt::Debug for RequestTemplate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RequestTemplate")
            .field("method", &self.method)
            .field("url", &self.url)
            .field("values", &self.values)
            .finish_non_exhaustive()
    }
}

/// The value at `a.b` of a record: the field of that name, or one of an object in it.
pub(super) fn at<'a>(record: &'a Value, field: &str) -> Option<&'a Value> {
    if let Some(value) = record.get(field) {
        return Some(value);
    }
    field.split('.').try_fold(record, |value, name| value.get(name))
}

/// A secret in all the ways in which an answer may repeat it: as it is, in a URL, a form, and JSON.
fn written(secret: &str) -> Vec<String> {
    let url = utf8_percent_encode(secret, RESERVED).to_string();
    let form: String = url::form_urlencoded::byte_serialize(secret.as_bytes()).collect();
    let lower = |encoded: &str| {
        let mut parts = encoded.split('%');
        let first = parts.next().unwrap_or_default().to_owned();
        parts.fold(first, |text, part| match part.split_at_checked(2) {
            Some((digits, rest)) => format!("{text}%{}{rest}", digits.to_ascii_lowercase()),
            None => format!("{text}%{part}"),
        })
    };
    let json = Value::String(secret.to_owned()).to_string();
    let json = json[1..json.len() - 1].to_owned();
    let ascii: String = json
        .chars()
        .map(|char| match char.is_ascii() {
            true => char.to_string(),
            false => char.encode_utf16(&mut [0; 2]).iter().map(|unit| format!("\\u{unit:04x}")).collect(),
        })
        .collect();
    let slashes = [&json, &ascii].map(|json| json.replace('/', "\\/"));
    let mut written = vec![secret.to_owned(), lower(&url), lower(&form), url, form, json, ascii];
    written.extend(slashes);
    // As links are normalised, which leaves more as it is.
    if let Ok(mut link) = Url::parse("http://host/") {
        link.set_path(secret);
        written.push(link.path().trim_start_matches('/').to_owned());
        link.set_query(Some(secret));
        written.extend(link.query().map(str::to_owned));
    }
    written
}

/// A value as it stands in a text.
pub(super) fn plain(field: &str, value: &Value) -> Result<String, String> {
    match value {
        Value::String(text) => Ok(text.clone()),
        Value::Number(number) => Ok(number.to_string()),
        Value::Bool(bool) => Ok(bool.to_string()),
        Value::Null => Err(format!("the field {field} is null")),
        Value::Array(_) | Value::Object(_) => Err(format!("the field {field} is neither text, number nor boolean")),
    }
}

impl Text {
    pub(super) fn parse(text: &str) -> Result<Self, SpecError> {
        let bad = |reason: &str| SpecError::new(text, reason);
        let mut parts = Vec::new();
        let mut literal = String::new();
        let mut rest = text;
        while let Some(at) = rest.find(['{', '}']) {
            literal.push_str(&rest[..at]);
            let (brace, behind) = rest[at..].split_at(1);
            if let Some(behind) = behind.strip_prefix(brace) {
                literal.push_str(brace);
                rest = behind;
                continue;
            }
            let (name, behind) = match brace {
                "{" => behind.split_once('}').ok_or_else(|| bad("a brace is not closed"))?,
                _ => return Err(bad("a brace is closed that was not opened; \"}}\" is one that stands for itself")),
            };
            if !literal.is_empty() {
                parts.push(Part::Literal(std::mem::take(&mut literal)));
            }
            parts.push(match name.strip_prefix('$').unwrap_or(name) {
                "" => return Err(bad("there is no name between the braces")),
                name if name.contains('{') => return Err(bad("a brace is opened in a name")),
                variable if name.starts_with('$') => Part::Variable(variable.to_owned()),
                field => Part::Field(field.to_owned()),
            });
            rest = behind;
        }
        literal.push_str(rest);
        if !literal.is_empty() {
            parts.push(Part::Literal(literal));
        }
        Ok(Self(parts))
    }

    pub(super) fn fields(&self) -> impl Iterator<Item = &str> {
        self.0.iter().filter_map(|part| match part {
            Part::Field(field) => Some(field.as_str()),
            _ => None,
        })
    }

    /// With what one record has, not encoded.
    pub(super) fn of_record(&self, record: &Value) -> Result<String, String> {
        let texts = self.0.iter().map(|part| match part {
            Part::Literal(literal) => Ok(literal.clone()),
            Part::Variable(name) => Err(format!("{{${name}}} cannot stand there")),
            Part::Field(field) => {
                plain(field, at(record, field).ok_or_else(|| format!("the field {field} is missing"))?)
            }
        });
        texts.collect()
    }
}

impl Node {
    fn parse(value: &Value, depth: usize) -> Result<Self, SpecError> {
        if depth > 64 {
            return Err(SpecError::new("the body", "it is nested more than 64 times"));
        }
        Ok(match value {
            Value::String(text) => Self::Text(Text::parse(text)?),
            Value::Array(values) => {
                Self::Array(values.iter().map(|value| Self::parse(value, depth + 1)).collect::<Result<_, _>>()?)
            }
            Value::Object(members) => {
                let members = members.iter().map(|(name, value)| Ok((name.clone(), Self::parse(value, depth + 1)?)));
                Self::Object(members.collect::<Result<_, SpecError>>()?)
            }
            other => Self::Other(other.clone()),
        })
    }

    fn fields<'a>(&'a self, fields: &mut Vec<&'a str>) {
        let mut texts = Vec::new();
        self.texts(&mut texts);
        fields.extend(texts.into_iter().flat_map(Text::fields));
    }

    fn texts<'a>(&'a self, texts: &mut Vec<&'a Text>) {
        match self {
            Self::Text(text) => texts.push(text),
            Self::Array(nodes) => nodes.iter().for_each(|node| node.texts(texts)),
            Self::Object(members) => members.iter().for_each(|(_, node)| node.texts(texts)),
            Self::Other(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn fill(template: &RequestTemplate, record: Value) -> Result<Prepared, String> {
        template.fill(Records { records: &[&record], differing: None })
    }

    #[test]
    fn values_are_encoded_by_their_place() {
        let template = RequestTemplate::get("{$base}/a%20b/{kind}/{x.y}?q={text}&n={n}&k={$key}&{{}}={flag}")
            .unwrap()
            .value("base", "http://host/api/")
            .secret("key", "p&ss wörd")
            .header("x-key", "Bearer {$key2}/{kind}")
            .unwrap()
            .secret("key2", "abcdefgh");
        let record =
            json!({"kind": "a/b", "x": {"y": "?#%"}, "text": "ä &=+", "n": 18446744073709551615u64, "flag": true});
        let made = fill(&template, record).unwrap();
        let rest = "n=18446744073709551615&k=";
        assert_eq!(
            made.url.as_str(),
            format!("http://host/api/a%20b/a%2Fb/%3F%23%25?q=%C3%A4%20%26%3D%2B&{rest}p%26ss%20w%C3%B6rd&{{}}=true")
        );
        assert_eq!(
            made.shown,
            format!("GET http://host/api/a%20b/a%2Fb/%3F%23%25?q=%C3%A4%20%26%3D%2B&{rest}{{$key}}&{{}}=true")
        );
        assert_eq!(made.headers["x-key"], "Bearer abcdefgh/a/b");
        let hidden = template.hide(&made.headers, "no p&ss wörd, p%26ss%20w%C3%B6rd, abcdefgh, Bearer abcdefgh/a/b");
        assert_eq!(hidden, "no …, …, …, …");
        assert_eq!(template.fields(), ["flag", "kind", "n", "text", "x.y"]);
        assert!(!format!("{template:?}").contains("abcdefgh"));
    }

    #[test]
    fn what_makes_no_request_is_named() {
        let template = RequestTemplate::get("http://host/{id}/x?y={y}").unwrap();
        for (record, what) in [
            (json!({"id": 1}), "the field y is missing"),
            (json!({"id": null, "y": 1}), "the field id is null"),
            (json!({"id": [1], "y": 1}), "the field id is neither text, number nor boolean"),
            (json!({"id": "..", "y": 1}), "a segment of its path is \"..\""),
            (json!({"id": "", "y": 1}), "a value in its path is empty"),
            (json!("text"), "the field id is missing"),
        ] {
            assert_eq!(fill(&template, record.clone()).unwrap_err(), what, "{record}");
        }
        let template = RequestTemplate::get("http://host/all/{id}%2e").unwrap();
        assert_eq!(fill(&template, json!({"id": "."})).unwrap_err(), "its path is understood as \"/\"");
        assert_eq!(fill(&template, json!({"id": 1})).unwrap().url.path(), "/all/1%2e");
        let template = RequestTemplate::get("{$base}/{id}").unwrap().value("base", "http://");
        assert_eq!(
            fill(&template, json!({"id": "other"})).unwrap_err(),
            "the base {$base} does not begin with http:// or https:// and a server"
        );
        let template = RequestTemplate::get("{$base}/x").unwrap().value("base", "http://user:secret@host");
        assert_eq!(
            fill(&template, json!({})).unwrap_err(),
            "its URL has a user or a password, which belong into a header"
        );
        let template = RequestTemplate::get("http://host/").unwrap().header("x", "{a}").unwrap();
        let what = fill(&template, json!({"a": "b\r\nc: d"})).unwrap_err();
        assert_eq!(what, "the header x cannot have its value");
    }

    #[test]
    fn what_is_no_template_is_refused() {
        for url in [
            "",
            "ftp://host/",
            "host/",
            "http://{host}/",
            "http://ho{st}",
            "{base}/x",
            "{$base}{x}",
            "{$base}x/",
            "http://host/{",
            "http://host/}",
            "http://host/{}",
            "http://host/{$}",
            "http://host/{a{b}",
            "http://host/#{a}",
            "http:///{a}",
            "http://\t/{a}",
            "http://host\\{a}/",
        ] {
            assert!(RequestTemplate::get(url).is_err(), "{url}");
        }
        assert!(RequestTemplate::new("G T", "http://host/").is_err());
        assert!(RequestTemplate::get("http://host/").unwrap().header("a b", "").is_err());
        let unset = RequestTemplate::get("http://host/{$a}").unwrap().check().unwrap_err();
        assert_eq!(unset.to_string(), "\"{$a}\": nothing says what it stands for");
    }

    #[test]
    fn several_records_are_one_request() {
        let records = [json!({"id": 1, "r": 2}), json!({"id": "a,b", "r": 2}), json!({"id": 3, "r": 2})];
        let records: Vec<&Value> = records.iter().collect();
        let made = |url: &str, several| {
            let template = RequestTemplate::new("POST", url).unwrap();
            let template = template.json(&json!({"ids": "{id}", "of": ["{r}", "r{r}"], "n": 1})).unwrap();
            let made = template.fill(Records { records: &records, differing: Some(("id", several)) }).unwrap();
            assert_eq!(made.body.unwrap(), r#"{"ids":[1,"a,b",3],"n":1,"of":[2,"r2"]}"#);
            assert_eq!(made.headers[CONTENT_TYPE], "application/json");
            made.url.to_string()
        };
        assert_eq!(made("http://host/{r}?id_set={id}&x=1", Several::Joined), "http://host/2?id_set=1,a%2Cb,3&x=1");
        assert_eq!(
            made("http://host/{r}?x=1&id_set[]={id}&r={r}", Several::Repeated),
            "http://host/2?x=1&id_set[]=1&id_set[]=a%2Cb&id_set[]=3&r=2"
        );
    }

    #[test]
    fn of_several_records_in_a_path_none_is_empty() {
        let records = [json!({"id": "a"}), json!({"id": ""}), json!({"id": "c"})];
        let records: Vec<&Value> = records.iter().collect();
        let fill = |url: &str| {
            let template = RequestTemplate::get(url).unwrap();
            template.fill(Records { records: &records, differing: Some(("id", Several::Joined)) })
        };
        assert_eq!(fill("http://host/{id}").unwrap_err(), "a value in its path is empty");
        assert_eq!(fill("http://host/?id={id}").unwrap().url.as_str(), "http://host/?id=a,,c");
    }

    proptest! {
        #[test]
        fn a_value_comes_back_as_it_was(text in ".*") {
            let template = RequestTemplate::get("http://host/x/{t}?q={t}").unwrap();
            let made = fill(&template, json!({"t": text}));
            if matches!(text.as_str(), "" | "." | "..") {
                prop_assert!(made.is_err());
            } else {
                let url = made.unwrap().url;
                let decode = |text: &str| percent_encoding::percent_decode_str(text).decode_utf8().unwrap().into_owned();
                let segments: Vec<_> = url.path_segments().unwrap().map(decode).collect();
                prop_assert_eq!(segments, vec!["x".to_owned(), text.clone()]);
                prop_assert_eq!(decode(url.query().unwrap()), format!("q={text}"));
            }
        }

        #[test]
        fn any_template_is_read_or_refused(text in "[{}$a./?&=# ]{0,20}", value in ".{0,5}") {
            if let Ok(template) = RequestTemplate::get(&format!("http://host/{text}")) {
                let _ = fill(&template, json!({"a": value, ".": 1}));
            }
        }
    }
}
