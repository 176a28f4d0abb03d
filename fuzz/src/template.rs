//! Requests of a crawl: what a record has never leads to another server, into another place of the path or the query, nor
//! shows a secret.

use bulk_core::crawl::RequestTemplate;
use bulk_core::crawl::fuzzing::fill;
use serde_json::Value;
use url::Url;

use crate::Take;

const BASE: &str = "http://127.0.0.1:8080/base/";
const SECRET: &str = "s3cr3t+/=Key";

/// See the module. The template, a header, a body and the record stand behind each other, with a byte of 255 between them.
pub fn target(data: &[u8]) {
    let mut take = Take::new(data);
    let mut text = || str::from_utf8(take.part()).ok();
    let (Some(url), Some(header), Some(body), Some(record)) = (text(), text(), text(), text()) else { return };
    let Ok(record) = serde_json::from_str::<Value>(record) else { return };
    let Ok(mut template) = RequestTemplate::get(url).map(|template| template.value("base", BASE).secret("key", SECRET))
    else {
        return;
    };
    if !header.is_empty() {
        match template.clone().header("x-api-key", header) {
            Ok(with) => template = with,
            Err(_) => return,
        }
    }
    if let Ok(body) = serde_json::from_str::<Value>(body) {
        match template.clone().json(&body) {
            Ok(with) => template = with,
            Err(_) => return,
        }
    }
    let Ok((filled, shown)) = fill(&template, &record) else { return };
    let authority = match url.strip_prefix("{$base}") {
        Some(_) => Url::parse(BASE),
        None => {
            let (scheme, rest) = url.split_once("://").expect("it was checked");
            let end = rest.find(['/', '?']).unwrap_or(rest.len());
            Url::parse(&format!("{scheme}://{}", rest[..end].replace("{{", "{").replace("}}", "}")))
        }
    };
    let authority = authority.expect("the beginning of a URL is one");
    assert_eq!(filled.origin(), authority.origin(), "{url:?} {record}");
    assert!(filled.fragment().is_none() && filled.username().is_empty() && filled.password().is_none());
    let is_told = |text: &str| text.contains(&SECRET[..6]);
    if !is_told(url) && !is_told(body) && !is_told(&record.to_string()) {
        assert!(!is_told(&shown), "{shown}");
    }
    // Other values make a request of the same form.
    if let Ok((plain, _)) = fill(&template, &plain(&record)) {
        let pairs = |url: &Url| url.query().map(|query| query.split('&').count());
        let form = |url: &Url| (url.path_segments().map(Iterator::count), pairs(url));
        assert_eq!(form(&filled), form(&plain), "{filled} {plain}");
    }
}

/// The same record with nothing in its texts.
fn plain(value: &Value) -> Value {
    match value {
        Value::String(_) => Value::String("x".to_owned()),
        Value::Array(values) => Value::Array(values.iter().map(plain).collect()),
        Value::Object(fields) => {
            Value::Object(fields.iter().map(|(name, value)| (name.clone(), plain(value))).collect())
        }
        other => other.clone(),
    }
}
