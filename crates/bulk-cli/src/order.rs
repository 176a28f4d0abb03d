use std::cmp::Reverse;
use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use bulk_core::Request;

use crate::exit::Failure;
use crate::report::Report;

/// In which order files are fetched.
pub(super) struct Order {
    by: By,
    is_descending: bool,
}

enum By {
    Size,
    Name,
    Listed,
    /// Names or keys.
    File(Vec<String>),
}

impl Order {
    /// `size`, `name`, `listed` or the path of a list, with `:asc` or `:desc` behind it or not.
    pub(super) fn parse(text: &str) -> Result<Self, Failure> {
        let (by, is_descending) = match text.rsplit_once(':') {
            Some((by, "asc")) => (by, Some(false)),
            Some((by, "desc")) => (by, Some(true)),
            _ => (text, None),
        };
        let by = match by {
            "size" => By::Size,
            "name" => By::Name,
            "listed" => By::Listed,
            path => By::File(read_list(Path::new(path)).map_err(|error| {
                Failure::usage(format!("--order {path}: it is neither size, name or listed nor a file: {error}"))
            })?),
        };
        let is_descending = is_descending.unwrap_or(matches!(by, By::Size));
        Ok(Self { by, is_descending })
    }

    /// Sorts requests that are in the order of the listing, which decides among equals.
    pub(super) fn sort(&self, requests: &mut [Request], report: &Report) {
        let largest_first = |request: &Request| Reverse(request.size.unwrap_or(0));
        match (&self.by, self.is_descending) {
            (By::Size, false) => requests.sort_by_key(|request| request.size.unwrap_or(0)),
            (By::Size, true) => requests.sort_by_key(largest_first),
            (By::Name, false) => requests.sort_by(|a, b| a.name.cmp(&b.name)),
            (By::Name, true) => requests.sort_by(|a, b| b.name.cmp(&a.name)),
            (By::Listed, false) => {}
            (By::Listed, true) => requests.reverse(),
            (By::File(names), is_descending) => {
                let mut places: HashMap<&str, (usize, bool)> = HashMap::new();
                for (place, name) in names.iter().enumerate() {
                    places.entry(name).or_insert((if is_descending { names.len() - place } else { place }, false));
                }
                requests.sort_by_key(largest_first);
                requests.sort_by_cached_key(|request| {
                    let name = if places.contains_key(request.name.as_str()) { &request.name } else { &request.key };
                    let Some((place, is_used)) = places.get_mut(name.as_str()) else { return usize::MAX };
                    *is_used = true;
                    *place
                });
                for name in names.iter().filter(|name| !places[name.as_str()].1) {
                    report.warn(format!("{name}: the order has it, but it is not among the files"));
                }
            }
        }
    }
}

/// The lines of a file, or of standard input for `-`, without empty ones.
pub(super) fn read_list(path: &Path) -> std::io::Result<Vec<String>> {
    let reader: Box<dyn Read> = match path.to_str() {
        Some("-") => Box::new(std::io::stdin()),
        _ => Box::new(std::fs::File::open(path)?),
    };
    let mut names = Vec::new();
    for line in BufReader::new(reader).lines() {
        let mut line = line?;
        if line.ends_with('\r') {
            line.pop();
        }
        if !line.is_empty() {
            names.push(line);
        }
    }
    Ok(names)
}
