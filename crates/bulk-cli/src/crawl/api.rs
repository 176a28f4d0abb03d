use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;

use bulk_core::crawl::{Batch, Crawler, Quarantined, SpecError};
use bulk_core::{Error, Event, Limiter};
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use serde_json::Value;

use super::spec::{Input, List, Spec};
use crate::arguments::{Common, CrawlArguments};
use crate::counted::counted;
use crate::exit::{Failure, exit_of_fetch};
use crate::report::{Chain, Report};
use crate::source::{http_client, readable_host};

/// What is wanted of each record.
pub(super) struct Wanted<'a> {
    /// Where the spec says so.
    pub(super) place: String,
    /// What is wanted.
    pub(super) field: &'a str,
    /// Whether `a.b` may be what `a` has.
    pub(super) may_lead: bool,
}

/// Who asks an API: for records, and for the lists that it has, all under the same limits.
pub(super) struct Api<'a> {
    spec: &'a Spec,
    crawler: Crawler,
    since: Option<String>,
}

impl<'a> Api<'a> {
    /// The limiter goes on where that of the last run stopped, unless it is only looked whether all fits: nobody else can use
    /// its file meanwhile. `since` is from when on changes are asked for, as the spec writes it.
    pub(super) fn open(
        arguments: &CrawlArguments,
        spec: &'a Spec,
        since: Option<String>,
        common: &Common,
        report: &Report,
    ) -> Result<Self, Failure> {
        let template = &spec.template;
        if let Some(host) = template.has_secrets().then(|| readable_host(template.base())).flatten() {
            report
                .warn(format!("the spec's secrets go to {host} without encryption, readable on the way; use https://"));
        }
        let limiter = match arguments.check {
            true => Limiter::new(spec.limits.clone()),
            false => Limiter::open(spec.limits.clone(), limits_file(arguments))?,
        };
        let held = limiter.status().held;
        if !held.is_zero() {
            let seconds = counted(held.as_secs() + 1, "second", "seconds");
            report.note(format!("the API has asked to wait, and no request is sent for {seconds}"));
        }
        let mut crawler = Crawler::new(http_client()?, limiter, spec.template.clone());
        crawler.success = spec.success.clone();
        if let Some(concurrency) = spec.concurrency {
            crawler.options.concurrency = concurrency;
        }
        // Rows that wait take the rest.
        crawler.options.memory = spec.memory - 2 * spec.batch_bytes();
        if let Some(answer) = spec.answer {
            crawler.options.answer_limit = usize::try_from(answer).unwrap_or(usize::MAX);
        }
        crawler.options.repeat = spec.repeat;
        crawler.options.stop = common.stop.clone();
        if !common.dry_run {
            report.meters().meter_crawl(&mut crawler.options);
        }
        let observer = report.clone();
        crawler.options.observer = Arc::new(move |event: &Event<'_>| {
            // There may be twenty of them a second, and nothing to be done about them.
            if let Event::Retry { name, attempt, delay, error } = event {
                let (next, seconds) = (attempt + 1, delay.as_secs_f64());
                observer.detail(format!("{name}: {}; attempt {next} follows in {seconds:.1} s", reason(error)));
            }
        });
        Ok(Self { spec, crawler, since })
    }

    pub(super) fn limiter(&self) -> &Limiter {
        &self.crawler.limiter
    }

    /// What is wanted of each record. Records may be without what columns alone are of.
    pub(super) fn fields(&self, with_columns: bool) -> Vec<Wanted<'_>> {
        let wanted =
            |of: &str, field| Wanted { place: format!("{of} has a place for {{{field}}}"), field, may_lead: true };
        let request = self.spec.template.fields().into_iter().map(|field| wanted("[request]", field));
        let batch = self.spec.batch.iter().flat_map(Batch::fields);
        let batch = batch.map(|field| wanted("of-record of [batch]", field));
        let rows = self.spec.rows.iter().filter(|_| with_columns).flat_map(|rows| {
            let wants = |field| {
                let place = format!("a column of {:#} is of input.{field}", rows.table.table);
                Wanted { place, field, may_lead: false }
            };
            rows.explode.input_fields().into_iter().map(wants)
        });
        request.chain(batch).chain(rows).collect()
    }

    /// Who asks for records.
    pub(super) fn of_records(&self) -> Crawler {
        let mut crawler = self.crawler.clone();
        crawler.template = self.dated(crawler.template);
        crawler.pagination.clone_from(&self.spec.pagination);
        crawler.options.max_pages = self.spec.max_pages.unwrap_or(crawler.options.max_pages);
        crawler.batch.clone_from(&self.spec.batch);
        crawler
    }

    /// Who asks for a list.
    pub(super) fn of_list(&self, list: &List) -> Crawler {
        let mut crawler = self.crawler.clone();
        crawler.template = self.dated(list.template.clone());
        crawler.pagination.clone_from(&list.pagination);
        crawler.options.max_pages = list.max_pages.unwrap_or(crawler.options.max_pages);
        // That of a record may be gone. A list that is not there is no empty one: what it had to say would be passed over.
        crawler.success.nothing.clear();
        crawler
    }

    /// Whether everything that requests are made of goes together. None is made.
    pub(super) fn check(&self) -> Result<(), Failure> {
        let lists = self.spec.deletes.iter().map(|deletes| &deletes.list);
        let input = match &self.spec.input {
            Input::List { list, .. } => Some(&**list),
            Input::Query(_) | Input::File(_) => None,
        };
        let all = std::iter::once(self.of_records()).chain(lists.chain(input).map(|list| self.of_list(list)));
        for crawler in all {
            crawler.crawl(futures::stream::empty()).map_err(wrong)?;
        }
        Ok(())
    }

    /// The records that a list of the API has.
    pub(super) fn records(
        &self,
        list: &List,
        each: &str,
        name: &str,
    ) -> Result<BoxStream<'static, Result<Value, Failure>>, Failure> {
        let records = self.of_list(list).records(each, name).map_err(wrong)?;
        Ok(records.map_err(|failure| failed(&failure)).boxed())
    }

    fn dated(&self, template: bulk_core::crawl::RequestTemplate) -> bulk_core::crawl::RequestTemplate {
        match &self.since {
            Some(since) => template.value("since", since),
            None => template,
        }
    }
}

fn limits_file(arguments: &CrawlArguments) -> PathBuf {
    arguments.limits_file.clone().unwrap_or_else(|| {
        let mut name: OsString = arguments.spec.clone().into();
        name.push(".limits");
        PathBuf::from(name)
    })
}

/// What is wrong with a spec.
pub(super) fn wrong(error: SpecError) -> Failure {
    Failure::usage(format!("the spec: {error}"))
}

/// A request without which nothing goes on.
pub(super) fn failed(failure: &Quarantined) -> Failure {
    let text = format!("{}: {}", failure.request, reason(&failure.error));
    Failure::new(exit_of_fetch(&failure.error), anyhow::anyhow!(text))
}

/// Why a request failed, which is named beside it.
pub(super) fn reason(error: &Error) -> String {
    let named = |text: String| match error.location().map(|location| (text.strip_prefix(location), location)) {
        Some((Some(rest), _)) if rest.starts_with(": ") => rest[2..].to_owned(),
        Some((_, location)) => text.replacen(location, "it", 1),
        None => text,
    };
    match error {
        Error::Exhausted { source, .. } | Error::Unrepeatable { source, .. } => {
            format!("{}: {}", named(error.to_string()), reason(source))
        }
        error => named(Chain(error).to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_does_not_name_the_request_again() {
        let location = || "http://host/a".to_owned();
        let status = || Error::Status { location: location(), status: 500, retry_after: None, reason: None };
        let denied = Error::Denied { location: location(), reason: Some("no".to_owned()) };
        let elapsed = std::time::Duration::from_millis(1500);
        for (error, said) in [
            (status(), "the server answered 500"),
            (Error::NotFound { location: location() }, "it does not exist"),
            (denied, "access to it is denied (no)"),
            (
                Error::Exhausted { attempts: 2, elapsed, source: Box::new(status()) },
                "gave up after 2 attempts in 1.5 s: the server answered 500",
            ),
            (
                Error::Unrepeatable { location: location(), source: Box::new(status()) },
                "it is not known whether the request was carried out, and it is not one to be repeated: the server \
                 answered 500",
            ),
            (
                Error::Record { what: "the field a is null".to_owned() },
                "no request can be made of the record: the field a is null",
            ),
        ] {
            assert_eq!(reason(&error), said);
        }
    }
}
