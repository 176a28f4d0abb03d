use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use bulk_core::{HttpSource, Request, Source};
use bulk_s3::{Object, newest_of_each};
use globset::{GlobBuilder, GlobSet, GlobSetBuilder};

use crate::arguments::Fetch;
use crate::blocking::blocking;
use crate::dataset::Dataset;
use crate::exit::{Exit, Failure};
use crate::order::{Order, Placed, read_list};
use crate::report::Report;
use crate::source::{Place, WebFile, http_client};

/// The manifest's own name, which no file may have.
pub(super) const MANIFEST: &str = "manifest.json";

/// Which files are wanted, and in which order.
pub(super) struct Choice {
    include: Option<GlobSet>,
    exclude: GlobSet,
    /// Names or keys, each once.
    names: Option<Vec<String>>,
    order: Order,
}

impl Choice {
    /// Reads what the flags name.
    pub(super) async fn new(fetch: &Fetch) -> Result<Self, Failure> {
        let (order, files_from) = (fetch.order.clone(), fetch.files_from.clone());
        let include = Some(globs("--include", &fetch.include)?).filter(|globs| !globs.is_empty());
        let exclude = globs("--exclude", &fetch.exclude)?;
        // Standard input may take its time.
        let (order, names) = blocking(move || {
            let order = Order::parse(&order)?;
            let names = files_from.map(|path| {
                let failed = |error| Failure::usage(format!("--files-from {}: {error}", path.display()));
                read_list(&path).map_err(failed)
            });
            Ok((order, names.transpose()?))
        })
        .await?;
        let names = names.map(|mut names| {
            let mut seen = HashSet::new();
            names.retain(|name| seen.insert(name.clone()));
            names
        });
        Ok(Self { include, exclude, names, order })
    }

    fn takes(&self, name: &str) -> bool {
        self.include.as_ref().is_none_or(|include| include.is_match(name)) && !self.exclude.is_match(name)
    }
}

fn globs(flag: &str, patterns: &[String]) -> Result<GlobSet, Failure> {
    let mut set = GlobSetBuilder::new();
    let failed = |error: globset::Error| Failure::usage(format!("{flag}: {error}"));
    for pattern in patterns {
        set.add(GlobBuilder::new(pattern).backslash_escape(true).build().map_err(failed)?);
    }
    set.build().map_err(failed)
}

/// What is to be fetched, in order, and from where.
pub(super) struct Planned {
    pub(super) source: Arc<dyn Source>,
    pub(super) requests: Vec<Request>,
    /// Files that are wanted and cannot be fetched.
    pub(super) failures: Vec<Failure>,
}

pub(super) async fn plan(fetch: &Fetch, choice: &Choice, report: &Report) -> Result<Planned, Failure> {
    let source = fetch.source.as_deref().unwrap_or_default();
    let mut planned = if source.starts_with("http://") || source.starts_with("https://") {
        from_web(source, choice)?
    } else {
        from_listing(source, fetch, choice, report).await?
    };
    planned.requests.retain(|request| choice.takes(&request.name));
    if planned.requests.is_empty() && planned.failures.is_empty() {
        let what = anyhow::anyhow!("none of the files is chosen: see --include, --exclude and --files-from");
        return Err(Failure::new(Exit::Failed, what));
    }
    if let Some(at) = planned.requests.iter().position(|request| request.name == MANIFEST) {
        let key = planned.requests.remove(at).key;
        let what = anyhow::anyhow!("{key}: not fetched, because {MANIFEST} in --out is the list of what was fetched");
        planned.failures.push(Failure::new(Exit::Failed, what));
    }
    choice.order.sort(
        &mut planned.requests,
        |request| Placed { names: [&request.name, &request.key], size: request.size.unwrap_or(0) },
        report,
    );
    Ok(planned)
}

/// The file of a URL, or those below it that the list names.
fn from_web(url: &str, choice: &Choice) -> Result<Planned, Failure> {
    let Some(names) = &choice.names else {
        let WebFile { source, request } = WebFile::open(url)?.ok_or_else(|| {
            // Without the URL, which may hold a password.
            Failure::usage(
                "the URL names no file; for files below it there is --files-from, and a bucket is s3://bucket/prefix \
                 with --endpoint",
            )
        })?;
        return Ok(Planned { source: Arc::new(source), requests: vec![request], failures: Vec::new() });
    };
    let url = url.split('#').next().unwrap_or(url);
    let (base, query) = url.split_once('?').unwrap_or((url, ""));
    let below = format!("{}/", base.trim_end_matches('/'));
    let request = |name: &String| Request::new(name.strip_prefix(&below).unwrap_or(name));
    let source = HttpSource::with_client(&format!("{base}?{query}"), http_client()?)?;
    Ok(Planned { source: Arc::new(source), requests: names.iter().map(request).collect(), failures: Vec::new() })
}

/// Those files of a bucket or folder that are wanted.
async fn from_listing(source: &str, fetch: &Fetch, choice: &Choice, report: &Report) -> Result<Planned, Failure> {
    let (source, arguments) = Dataset::locate(source, &fetch.bucket)?;
    let place = Place::open(&source, &arguments, report)?;
    place.refuse_folder("--out", &fetch.out)?;
    let mut objects = place.list().await?;
    if objects.is_empty() {
        let what = anyhow::anyhow!("there is nothing at {}", place.location());
        return Err(Failure::new(Exit::Failed, what));
    }
    let mut failures = Vec::new();
    match &choice.names {
        Some(names) => {
            let mut missing = Vec::new();
            objects = named(objects, &place, names, &mut missing);
            failures.extend(missing.into_iter().map(|name| {
                Failure::new(Exit::Failed, anyhow::anyhow!("{name}: there is no such file at {}", place.location()))
            }));
        }
        None => {
            objects.retain(|object| !object.key.ends_with('/') && choice.takes(place.name(&object.key)));
            if !fetch.all_dates {
                objects = newest_of_each(objects, &fetch.date_pattern);
            }
        }
    }
    let request = |object: &Object| {
        let mut request = object.request();
        // Below the prefix, files of one name may stand in several folders.
        request.name = place.name(&object.key).to_owned();
        request
    };
    Ok(Planned { source: place.source(), requests: objects.iter().map(request).collect(), failures })
}

/// The objects that the names stand for, in the order of the names, and the names that stand for none.
fn named(objects: Vec<Object>, place: &Place, names: &[String], missing: &mut Vec<String>) -> Vec<Object> {
    let mut places: HashMap<&str, usize> = HashMap::new();
    for (at, object) in objects.iter().enumerate() {
        places.entry(&object.key).or_insert(at);
    }
    // A name goes before a key that reads the same.
    for (at, object) in objects.iter().enumerate() {
        places.insert(place.name(&object.key), at);
    }
    let mut taken = HashSet::new();
    let mut found = Vec::new();
    for name in names {
        match places.get(name.as_str()) {
            Some(at) if taken.insert(*at) => found.push(objects[*at].clone()),
            Some(_) => {}
            None => missing.push(name.clone()),
        }
    }
    found
}
