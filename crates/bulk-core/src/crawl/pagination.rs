use http::HeaderMap;
use http::header::LINK;
use serde_json::Value;
use serde_json_path::JsonPath;
use url::Url;

use super::SpecError;
use super::rule::json_path;

/// How an answer that is one page of several leads to the next one.
#[derive(Clone, Debug)]
pub struct Pagination(Kind);

#[derive(Clone, Debug)]
enum Kind {
    LinkHeader,
    NextLink(JsonPath),
    Cursor { cursor: JsonPath, parameter: String },
    Number { parameter: String, first: u64, last: Last },
}

#[derive(Clone, Debug)]
enum Last {
    Says(JsonPath),
    IsEmpty(JsonPath),
}

impl Pagination {
    /// By the URL in the header `Link` with `rel="next"` (RFC 8288); a page without one is the last.
    pub fn link_header() -> Self {
        Self(Kind::LinkHeader)
    }

    /// By the URL that stands there in the body, which may be relative; nothing, null or an empty text ends it.
    ///
    /// # Errors
    ///
    /// If it is no JSONPath.
    pub fn next_link(path: &str) -> Result<Self, SpecError> {
        Ok(Self(Kind::NextLink(json_path(path)?)))
    }

    /// By a text or number that stands there in the body, and is sent as that parameter of the query; nothing, null or an
    /// empty text ends it.
    ///
    /// # Errors
    ///
    /// If it is no JSONPath.
    pub fn cursor(path: &str, parameter: &str) -> Result<Self, SpecError> {
        Ok(Self(Kind::Cursor { cursor: json_path(path)?, parameter: parameter.to_owned() }))
    }

    /// By the number of the page as that parameter of the query, from `first` on to the number that stands in the body at
    /// `last`, such as `$.last_page`.
    ///
    /// # Errors
    ///
    /// If `last` is no JSONPath.
    pub fn number(parameter: &str, first: u64, last: &str) -> Result<Self, SpecError> {
        let last = Last::Says(json_path(last)?);
        Ok(Self(Kind::Number { parameter: parameter.to_owned(), first, last }))
    }

    /// By the number of the page, until one has nothing at `items`, such as `$.results[*]`.
    ///
    /// # Errors
    ///
    /// If `items` is no JSONPath.
    pub fn number_until_empty(parameter: &str, first: u64, items: &str) -> Result<Self, SpecError> {
        let last = Last::IsEmpty(json_path(items)?);
        Ok(Self(Kind::Number { parameter: parameter.to_owned(), first, last }))
    }

    /// The URL of the first page.
    pub(super) fn first(&self, mut url: Url) -> Url {
        if let Kind::Number { parameter, first, .. } = &self.0 {
            set(&mut url, parameter, &first.to_string());
        }
        url
    }

    /// Whether the place of a page is good for any time: a number that we count.
    pub(super) fn lasts(&self) -> bool {
        matches!(self.0, Kind::Number { .. })
    }

    /// Whether a page behind another one may not be there: that does not announce it.
    pub(super) fn tries_pages(&self) -> bool {
        matches!(self.0, Kind::Number { last: Last::IsEmpty(_), .. })
    }

    /// What tells the URL of a page that is not the first one: no more of it than the answers say.
    pub(super) fn place(&self, url: &Url) -> Option<String> {
        match &self.0 {
            Kind::LinkHeader | Kind::NextLink(_) => Some(url.to_string()),
            Kind::Cursor { parameter, .. } | Kind::Number { parameter, .. } => {
                url.query_pairs().find(|(name, _)| name == parameter).map(|(_, value)| value.into_owned())
            }
        }
    }

    /// The URL of a page whose [`place`](Self::place) this is, where that of the first one is `first`.
    pub(super) fn at(&self, mut first: Url, place: &str) -> Option<Url> {
        match &self.0 {
            Kind::LinkHeader | Kind::NextLink(_) => place.parse().ok(),
            Kind::Cursor { parameter, .. } | Kind::Number { parameter, .. } => {
                set(&mut first, parameter, place);
                Some(first)
            }
        }
    }

    /// The URL of the page behind `number` others, whose last one was at `url` and is `document`; none if it is the end.
    ///
    /// # Errors
    ///
    /// What is wrong with it.
    pub(super) fn next(
        &self,
        url: &Url,
        headers: &HeaderMap,
        document: &Value,
        number: u64,
    ) -> Result<Option<Url>, String> {
        let text = |path: &JsonPath| match path.query(document).first() {
            Some(Value::String(text)) => Some(text.clone()).filter(|text| !text.is_empty()),
            Some(Value::Number(number)) => Some(number.to_string()),
            _ => None,
        };
        let next = match &self.0 {
            Kind::LinkHeader => link(headers).map(|link| url.join(&link)),
            Kind::NextLink(path) => text(path).map(|link| url.join(&link)),
            Kind::Cursor { cursor, parameter } => text(cursor).map(|cursor| {
                let mut next = url.clone();
                set(&mut next, parameter, &cursor);
                Ok(next)
            }),
            Kind::Number { parameter, first, last } => {
                let is_last = match last {
                    Last::IsEmpty(items) => items.query(document).is_empty(),
                    Last::Says(last) => {
                        let found = last.query(document);
                        let last = found.first().and_then(|last| match last {
                            Value::String(text) => text.parse().ok(),
                            other => other.as_u64(),
                        });
                        first + number > last.ok_or("it does not say which page is the last one")?
                    }
                };
                (!is_last).then(|| {
                    let mut next = url.clone();
                    set(&mut next, parameter, &(first + number).to_string());
                    Ok(next)
                })
            }
        };
        let Some(next) = next else { return Ok(None) };
        let next = next.map_err(|error| format!("its next page is no URL: {error}"))?;
        match () {
            // Keys and tokens are meant for this one.
            () if next.origin() != url.origin() => Err("its next page is on another server".to_owned()),
            () if next == *url => Err("its next page is itself".to_owned()),
            () => Ok(Some(next)),
        }
    }
}

/// Sets a parameter of the query, and leaves the others as they are written.
fn set(url: &mut Url, name: &str, value: &str) {
    let is_it = |pair: &str| {
        let found = pair.split('=').next().unwrap_or_default();
        url::form_urlencoded::parse(found.as_bytes()).next().is_some_and(|(found, _)| found == name)
    };
    let query = url.query().unwrap_or_default();
    let mut pairs: Vec<String> =
        query.split('&').filter(|pair| !pair.is_empty() && !is_it(pair)).map(str::to_owned).collect();
    pairs.push(url::form_urlencoded::Serializer::new(String::new()).append_pair(name, value).finish());
    url.set_query(Some(&pairs.join("&")));
}

/// `<URL>; rel="next"` out of the `Link` headers.
fn link(headers: &HeaderMap) -> Option<String> {
    let values = headers.get_all(LINK).into_iter().filter_map(|value| value.to_str().ok());
    values.flat_map(links).find_map(|(target, parameters)| {
        // What separates it from the next link.
        let parameters = parameters.trim_end().trim_end_matches(',');
        let mut parameters = parameters.split(';').filter_map(|parameter| parameter.trim().split_once('='));
        let is_next = parameters.any(|(name, value)| {
            let value = value.trim().trim_matches('"');
            name.trim().eq_ignore_ascii_case("rel")
                && value.split_whitespace().any(|relation| relation.eq_ignore_ascii_case("next"))
        });
        is_next.then(|| target.to_owned())
    })
}

/// Targets and parameters; a comma in a target is none between two links.
fn links(value: &str) -> impl Iterator<Item = (&str, &str)> {
    value.split('<').skip(1).filter_map(|part| part.split_once('>'))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn next(pagination: &Pagination, document: Value, link: &str, number: u64) -> Result<Option<String>, String> {
        let url: Url = "https://host/list?a=%2B1&page=1".parse().unwrap();
        let headers = HeaderMap::from_iter([(LINK, link.parse().unwrap())]);
        pagination.next(&url, &headers, &document, number).map(|url| url.map(|url| url.to_string()))
    }

    #[test]
    fn pages_lead_to_each_other_in_four_ways() {
        let ok = |url: &str| Ok(Some(url.to_owned()));
        let header = Pagination::link_header();
        let link = "</list?first,=1>; rel=\"first\", </list?a=2>; title=x; rel=\"last next\"";
        assert_eq!(next(&header, json!(null), link, 1), ok("https://host/list?a=2"));
        assert_eq!(next(&header, json!(null), "</b>; rel=\"next\" , </c>; rel=first", 1), ok("https://host/b"));
        assert_eq!(next(&header, json!(null), "<x>; rel=prev", 1), Ok(None));

        let by_link = Pagination::next_link("$.next").unwrap();
        assert_eq!(next(&by_link, json!({"next": "?a=3"}), "", 1), ok("https://host/list?a=3"));
        for end in [json!({}), json!({"next": null}), json!({"next": ""}), json!([])] {
            assert_eq!(next(&by_link, end, "", 1), Ok(None));
        }
        let stolen = json!({"next": "https://other/list"});
        assert_eq!(next(&by_link, stolen, "", 1), Err("its next page is on another server".to_owned()));
        let same = json!({"next": "?a=%2B1&page=1"});
        assert_eq!(next(&by_link, same, "", 1), Err("its next page is itself".to_owned()));

        let cursor = Pagination::cursor("$.cursor", "page").unwrap();
        assert_eq!(next(&cursor, json!({"cursor": "a&b="}), "", 1), ok("https://host/list?a=%2B1&page=a%26b%3D"));
        assert_eq!(next(&cursor, json!({"cursor": 7}), "", 1), ok("https://host/list?a=%2B1&page=7"));
        assert_eq!(next(&cursor, json!({"cursor": null}), "", 1), Ok(None));

        let number = Pagination::number("page", 1, "$.last_page").unwrap();
        assert_eq!(next(&number, json!({"last_page": 3}), "", 2), ok("https://host/list?a=%2B1&page=3"));
        assert_eq!(next(&number, json!({"last_page": "3"}), "", 3), Ok(None));
        assert!(next(&number, json!({}), "", 3).is_err());

        let until = Pagination::number_until_empty("page", 0, "$.results[*]").unwrap();
        assert_eq!(next(&until, json!({"results": [1]}), "", 4), ok("https://host/list?a=%2B1&page=4"));
        assert_eq!(next(&until, json!({"results": []}), "", 4), Ok(None));
        assert_eq!(until.first("https://host/".parse().unwrap()).as_str(), "https://host/?page=0");
    }
}
