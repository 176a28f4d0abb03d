use std::cmp::Reverse;
use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use crate::exit::Failure;
use crate::report::Report;

/// In which order files come.
pub(crate) struct Order {
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

/// What tells a file's place.
pub(crate) struct Placed<'f> {
    /// It is sorted by the first; a list may have either.
    pub(crate) names: [&'f str; 2],
    pub(crate) size: u64,
}

impl Order {
    /// `size`, `name`, `listed` or the path of a list, with `:asc` or `:desc` behind it or not.
    pub(crate) fn parse(text: &str) -> Result<Self, Failure> {
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

    /// Sorts files that are in the order of the listing, which decides among equals.
    pub(crate) fn sort<T>(&self, files: &mut [T], placed: impl Fn(&T) -> Placed<'_>, report: &Report) {
        let name = |file: &T| placed(file).names[0].to_owned();
        let largest_first = |file: &T| Reverse(placed(file).size);
        match (&self.by, self.is_descending) {
            (By::Size, false) => files.sort_by_key(|file| placed(file).size),
            (By::Size, true) => files.sort_by_key(largest_first),
            (By::Name, false) => files.sort_by_cached_key(name),
            (By::Name, true) => files.sort_by_cached_key(|file| Reverse(name(file))),
            (By::Listed, false) => {}
            (By::Listed, true) => files.reverse(),
            (By::File(names), is_descending) => {
                let mut places: HashMap<&str, (usize, bool)> = HashMap::new();
                for (place, name) in names.iter().enumerate() {
                    places.entry(name).or_insert((if is_descending { names.len() - place } else { place }, false));
                }
                files.sort_by_key(largest_first);
                files.sort_by_cached_key(|file| {
                    let [name, other] = placed(file).names;
                    let name = if places.contains_key(name) { name } else { other };
                    let Some((place, is_used)) = places.get_mut(name) else { return usize::MAX };
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
pub(crate) fn read_list(path: &Path) -> std::io::Result<Vec<String>> {
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
