use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::{Value, json};

use super::{Answer, Asked};

/// Records that a page has at most, and by default.
const PAGE: usize = 250;
const DEFAULT_PAGE: usize = 10;

/// The archival objects of a repository, 2, as ArchivesSpace's API gives them to whom the header `X-ArchivesSpace-Session`
/// names the session.
///
/// - `GET /repositories/2/archival_objects?all_ids=true`: their ids; with `modified_since`, in seconds since 1970, those of
///   what changed since.
/// - `GET …?id_set=1,2` (also `id_set[]=1&id_set[]=2`): these, as far as they exist, in the order of ids. With `resolve[]=subjects`, their
///   subjects beside the `ref`, as `_resolved`.
/// - `GET …?page=1&page_size=25`: one page, with `this_page`, `last_page`, `total`, `results`.
/// - `GET /repositories/2/archival_objects/1`: one of them.
/// - `GET /delete-feed?modified_since=…&page=1`: URIs of what was deleted, in pages.
///
/// Clones are one repository. Time is what [`put`](Self::put) and [`delete`](Self::delete) say.
#[derive(Clone, Debug)]
pub struct ArchivesSpace {
    session: String,
    content: Arc<Mutex<Content>>,
}

#[derive(Debug, Default)]
struct Content {
    /// By id: when it was changed, and its title.
    objects: BTreeMap<u64, (u64, String)>,
    deleted: Vec<(u64, u64)>,
}

impl ArchivesSpace {
    /// An empty repository, open to this session.
    pub fn new(session: &str) -> Self {
        Self { session: session.to_owned(), content: Arc::default() }
    }

    /// Makes or changes an object at that time, in seconds since 1970.
    pub fn put(&self, id: u64, title: &str, at: u64) {
        self.lock().objects.insert(id, (at, title.to_owned()));
    }

    /// Deletes an object at that time.
    pub fn delete(&self, id: u64, at: u64) {
        let mut content = self.lock();
        if content.objects.remove(&id).is_some() {
            content.deleted.push((at, id));
        }
    }

    /// The answer to a request: what a [`Server`](super::Server) is built with.
    pub fn answer(&self, asked: &Asked) -> Answer {
        if asked.header("x-archivesspace-session") != Some(&self.session) {
            return Answer::json(json!({"code": "SESSION_GONE", "error": "No session found for that id"})).status(412);
        }
        let segments = asked.segments();
        let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
        let content = self.lock();
        let since = match asked.param("modified_since").map(str::parse::<u64>) {
            None => 0,
            Some(Ok(since)) => since,
            Some(Err(_)) => return Answer::error(400, "modified_since: Wanted type Integer"),
        };
        match segments.as_slice() {
            ["repositories", "2", "archival_objects"] => content.list(asked, since),
            ["repositories", "2", "archival_objects", id] => {
                let found = id.parse().ok().and_then(|id| content.object(id, asked));
                found.map_or_else(|| Answer::error(404, "ArchivalObject not found"), Answer::json)
            }
            ["delete-feed"] => {
                let uris = content.deleted.iter().filter(|(at, _)| *at >= since).map(|(_, id)| json!(uri(*id)));
                page(asked, uris.collect())
            }
            _ => Answer::error(404, "Sinatra::NotFound"),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Content> {
        self.content.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Content {
    fn list(&self, asked: &Asked, since: u64) -> Answer {
        let changed = self.objects.iter().filter(|(_, (at, _))| *at >= since).map(|(id, _)| *id);
        if asked.param("all_ids") == Some("true") {
            return Answer::json(changed.collect());
        }
        let sets = asked.params("id_set").chain(asked.params("id_set[]"));
        let mut ids = Vec::new();
        for id in sets.flat_map(|set| set.split(',')) {
            match id.trim().parse::<u64>() {
                Ok(id) => ids.push(id),
                Err(_) => return Answer::error(400, "id_set: Wanted type [Integer]"),
            }
        }
        if !ids.is_empty() {
            ids.sort_unstable();
            ids.dedup();
            if ids.len() > PAGE {
                return Answer::error(400, "id_set: too many");
            }
            return Answer::json(ids.into_iter().filter_map(|id| self.object(id, asked)).collect());
        }
        if asked.param("page").is_none() {
            return Answer::error(400, "Must provide either 'page', 'id_set', or 'all_ids'");
        }
        page(asked, changed.filter_map(|id| self.object(id, asked)).collect())
    }

    fn object(&self, id: u64, asked: &Asked) -> Option<Value> {
        let (at, title) = self.objects.get(&id)?;
        let mut subject = json!({"ref": format!("/subjects/{}", id % 7)});
        if asked.params("resolve[]").any(|what| what == "subjects") {
            subject["_resolved"] = json!({"title": format!("Subject {}", id % 7), "uri": subject["ref"]});
        }
        Some(json!({
            "jsonmodel_type": "archival_object",
            "uri": uri(id),
            "ref_id": format!("{id:032x}"),
            "title": title,
            "level": "file",
            "system_mtime": time(*at),
            "subjects": [subject],
        }))
    }
}

fn uri(id: u64) -> String {
    format!("/repositories/2/archival_objects/{id}")
}

/// As in `2026-11-22T10:00:00Z`. Seconds that no calendar has are null.
fn time(seconds: u64) -> Option<String> {
    let seconds = i64::try_from(seconds).ok()?;
    Some(jiff::Timestamp::from_second(seconds).ok()?.to_string())
}

fn page(asked: &Asked, all: Vec<Value>) -> Answer {
    let number = |name, default| match asked.param(name) {
        None => Some(default),
        Some(text) => text.parse::<usize>().ok().filter(|number| *number > 0),
    };
    let (Some(this), Some(size)) = (number("page", 1), number("page_size", DEFAULT_PAGE)) else {
        return Answer::error(400, "page: Wanted type Integer");
    };
    let size = size.min(PAGE);
    let last = all.len().div_ceil(size).max(1);
    let results: Vec<_> = all.iter().skip((this - 1).saturating_mul(size)).take(size).collect();
    Answer::json(json!({"first_page": 1, "last_page": last, "this_page": this, "total": all.len(), "results": results}))
}
