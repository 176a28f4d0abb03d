//! What the fuzz targets reach of the inside (feature `fuzzing`): no part of the API.

use serde_json::Value;
use url::Url;

use super::RequestTemplate;
use super::template::Records;

/// The URL of the request for this record, and what is shown of the request.
///
/// # Errors
///
/// Why there is none, in words.
pub fn fill(template: &RequestTemplate, record: &Value) -> Result<(Url, String), String> {
    let prepared = template.fill(Records { records: &[record], differing: None })?;
    Ok((prepared.url, prepared.shown))
}
