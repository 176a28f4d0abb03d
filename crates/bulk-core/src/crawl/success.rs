use std::ops::RangeInclusive;
use std::time::Duration;

use serde_json::Value;
use serde_json_path::JsonPath;

use super::rule::{Hide, json_path, shortened};
use super::{Rule, SpecError};
use crate::Error;

/// How much of a message is shown.
const MESSAGE: usize = 200;
/// The longest wait that a body may ask for.
const LONGEST_WAIT: f64 = 3600.0;

/// When an answer is a success: by its status, and by what it says.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Success {
    /// Statuses of a success. Default 200 to 299. Any other one is judged by [`Error::is_transient`], unless its answer asks
    /// everybody to wait, by `Retry-After` or [in its body](Self::throttle): then it is tried again behind that wait,
    /// whatever it is.
    pub statuses: Vec<RangeInclusive<u16>>,
    /// What the body of a success says: all of it. Default nothing, but that it is JSON. What breaks a rule is tried again.
    pub rules: Vec<Rule>,
    /// What a body says that will say the same again: any of it. Such a failure is not tried again. Default nothing.
    pub lasting: Vec<Rule>,
    /// Statuses that say that there is nothing, and no longer will be, such as 404 and 410 for what was deleted since somebody
    /// listed it. Such an answer to the first request of a call is a success without a page. Behind a page it is a failure:
    /// what that has announced is missing. Only where pages are tried until one is empty, it is their end. Of a
    /// [batch](super::Batch) with such an answer each record is asked for by itself. For a list that is to be there it should be
    /// empty. Default none.
    pub nothing: Vec<RangeInclusive<u16>>,
    throttle: Option<JsonPath>,
    message: Option<JsonPath>,
}

impl Default for Success {
    fn default() -> Self {
        let (rules, lasting, nothing) = (Vec::new(), Vec::new(), Vec::new());
        Self { statuses: vec![200..=299], rules, lasting, nothing, throttle: None, message: None }
    }
}

impl Success {
    /// Where a body says for how many seconds it asks everybody to wait, such as `$.ThrottleSeconds`. It counts if it is a
    /// number above zero and a [rule](Self::rules) is broken or the status is [none](Self::statuses) of a success; an hour at
    /// most.
    ///
    /// # Errors
    ///
    /// If it is no JSONPath.
    pub fn throttle(mut self, path: &str) -> Result<Self, SpecError> {
        self.throttle = Some(json_path(path)?);
        Ok(self)
    }

    /// Where a body says in words why it failed, such as `$.Message`.
    ///
    /// # Errors
    ///
    /// If it is no JSONPath.
    pub fn message(mut self, path: &str) -> Result<Self, SpecError> {
        self.message = Some(json_path(path)?);
        Ok(self)
    }

    pub(super) fn has_status(&self, status: u16) -> bool {
        self.statuses.iter().any(|range| range.contains(&status))
    }

    pub(super) fn is_nothing(&self, status: u16) -> bool {
        self.nothing.iter().any(|range| range.contains(&status))
    }

    /// Whether it says what it will say again.
    pub(super) fn is_lasting(&self, document: &Value) -> bool {
        self.lasting.iter().any(|rule| rule.holds(document))
    }

    /// For how long a body asks everybody to wait.
    pub(super) fn wait(&self, document: &Value) -> Option<Duration> {
        let wait = self.throttle.as_ref().and_then(|path| path.query(document).first()?.as_f64());
        let wait = wait.filter(|seconds| *seconds > 0.0).map(|seconds| seconds.min(LONGEST_WAIT));
        wait.map(Duration::from_secs_f64)
    }

    /// Holds a body against the rules.
    pub(super) fn judge(&self, location: &str, document: &Value, hide: Hide<'_>) -> Result<(), Error> {
        let is_lasting = self.is_lasting(document);
        let broken = self.rules.iter().find(|rule| !rule.holds(document));
        let what = match broken {
            Some(rule) => rule.broken_by(document, hide),
            None => match self.lasting.iter().find(|rule| rule.holds(document)) {
                Some(rule) => format!("{rule}"),
                None => return Ok(()),
            },
        };
        let what = match self.message.as_ref().and_then(|path| path.query(document).first().cloned()) {
            Some(Value::String(text)) => {
                let text = hide(&text).replace(char::is_control, " ");
                format!("{what} ({})", shortened(text.trim(), MESSAGE))
            }
            _ => what,
        };
        let throttle = self.wait(document).filter(|_| !is_lasting);
        Err(Error::Answer { location: location.to_owned(), what, throttle, is_lasting })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_body_is_judged_by_what_it_says() {
        let mut success = Success::default().throttle("$.ThrottleSeconds").unwrap().message("$.Message").unwrap();
        success.rules = vec!["$.ErrorCode == 1".parse().unwrap()];
        success.lasting = vec!["$.ErrorCode == 1601".parse().unwrap()];
        let judge = |body: Value| match success.judge("x", &body, &str::to_owned) {
            Ok(()) => "success".to_owned(),
            Err(error) => format!("{error}, {:?}, {}", error.retry_after(), error.is_transient()),
        };
        for (body, verdict) in [
            (json!({"ErrorCode": 1, "ThrottleSeconds": 5}), "success"),
            (
                json!({"ErrorCode": 36, "ThrottleSeconds": 5, "Message": "slow\ndown "}),
                "x: $.ErrorCode == 1 does not hold: there is 36 (slow down), Some(5s), true",
            ),
            (json!({"ErrorCode": 5}), "x: $.ErrorCode == 1 does not hold: there is 5, None, true"),
            (
                json!({"ErrorCode": 5, "ThrottleSeconds": 1e300}),
                "x: $.ErrorCode == 1 does not hold: there is 5, Some(3600s), true",
            ),
            (
                json!({"ErrorCode": 5, "ThrottleSeconds": -1}),
                "x: $.ErrorCode == 1 does not hold: there is 5, None, true",
            ),
            (
                json!({"ErrorCode": 1601, "ThrottleSeconds": 5}),
                "x: $.ErrorCode == 1 does not hold: there is 1601, None, false",
            ),
            (json!([]), "x: $.ErrorCode == 1 does not hold: there is nothing, None, true"),
        ] {
            assert_eq!(judge(body.clone()), verdict, "{body}");
        }
    }
}
