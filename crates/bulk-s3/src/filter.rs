use std::fmt;

use globset::{GlobBuilder, GlobSet};
use regex::Regex;

/// Which keys are meant. The default is all of them.
///
/// A key is meant if it ends with one of the suffixes, matches one of the included globs and the regular expressions (each
/// of these as far as any are given), and none of the excluded globs. In globs `*` and `?` match `/`, too, `**` is as `*`,
/// and `\` escapes; they are matched against the whole key, or what of it is [below](Self::below) a prefix's folder.
/// Regular expressions are those of the `regex` crate, and match anywhere in the whole key.
#[derive(Clone, Debug, Default)]
pub struct KeyFilter {
    suffixes: Vec<String>,
    include: Globs,
    exclude: Globs,
    regexes: Vec<Regex>,
    /// How many bytes of a key globs do not see.
    base: usize,
}

#[derive(Clone, Debug, Default)]
struct Globs {
    patterns: Vec<String>,
    set: GlobSet,
}

impl Globs {
    fn add(&mut self, pattern: &str) -> Result<(), InvalidFilter> {
        self.patterns.push(pattern.to_owned());
        let mut set = GlobSet::builder();
        for pattern in &self.patterns {
            set.add(GlobBuilder::new(pattern).backslash_escape(true).build().map_err(InvalidFilter::new)?);
        }
        self.set = set.build().map_err(InvalidFilter::new)?;
        Ok(())
    }
}

/// A glob or regular expression that is none.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct InvalidFilter(String);

impl InvalidFilter {
    fn new(error: impl fmt::Display) -> Self {
        Self(error.to_string())
    }
}

impl KeyFilter {
    /// All keys.
    pub fn all() -> Self {
        Self::default()
    }

    /// Means keys that end with `suffix`, or with one of those given before.
    #[must_use]
    pub fn suffix(mut self, suffix: impl Into<String>) -> Self {
        self.suffixes.push(suffix.into());
        self
    }

    /// Means keys that match `glob`, or one of those given before.
    ///
    /// # Errors
    ///
    /// If it is no glob.
    pub fn include(mut self, glob: &str) -> Result<Self, InvalidFilter> {
        self.include.add(glob)?;
        Ok(self)
    }

    /// Means no keys that match `glob`.
    ///
    /// # Errors
    ///
    /// If it is no glob.
    pub fn exclude(mut self, glob: &str) -> Result<Self, InvalidFilter> {
        self.exclude.add(glob)?;
        Ok(self)
    }

    /// Means only keys in which `expression` matches somewhere, and all those given before as well.
    ///
    /// # Errors
    ///
    /// If it is no regular expression.
    pub fn regex(mut self, expression: &str) -> Result<Self, InvalidFilter> {
        self.regexes.push(Regex::new(expression).map_err(InvalidFilter::new)?);
        Ok(self)
    }

    /// Matches globs against what follows the last `/` of `prefix`, in keys that start with it.
    #[must_use]
    pub fn below(mut self, prefix: &str) -> Self {
        self.base = prefix.rfind('/').map_or(0, |at| at + 1);
        self
    }

    /// Whether it means every key.
    pub fn is_all(&self) -> bool {
        self.suffixes.is_empty()
            && self.include.set.is_empty()
            && self.exclude.set.is_empty()
            && self.regexes.is_empty()
    }

    /// Whether `key` is meant.
    pub fn matches(&self, key: &str) -> bool {
        if !self.suffixes.is_empty() && !self.suffixes.iter().any(|suffix| key.ends_with(suffix.as_str())) {
            return false;
        }
        if !self.include.set.is_empty() || !self.exclude.set.is_empty() {
            let name = key.get(self.base..).unwrap_or(key);
            if (!self.include.set.is_empty() && !self.include.set.is_match(name)) || self.exclude.set.is_match(name) {
                return false;
            }
        }
        self.regexes.iter().all(|regex| regex.is_match(key))
    }

    /// A text that two filters share exactly if they were made alike: a checkpoint is bound to it.
    pub fn identity(&self) -> String {
        let regexes: Vec<_> = self.regexes.iter().map(Regex::as_str).collect();
        format!(
            "suffix {:?} include {:?} exclude {:?} regex {regexes:?} below {}",
            self.suffixes, self.include.patterns, self.exclude.patterns, self.base
        )
    }
}

#[cfg(test)]
mod tests {
    use super::KeyFilter;

    const KEYS: [&str; 6] =
        ["pub/a/buildhub.json", "pub/a/x.json", "pub/b/buildhub.json", "pub/b/old/buildhub.json", "top.json", "x"];

    fn meant(filter: &KeyFilter) -> Vec<&'static str> {
        KEYS.into_iter().filter(|key| filter.matches(key)).collect()
    }

    #[test]
    fn each_kind_narrows() {
        assert_eq!(meant(&KeyFilter::all()), KEYS);
        let filter = KeyFilter::all().suffix("buildhub.json");
        assert_eq!(meant(&filter), ["pub/a/buildhub.json", "pub/b/buildhub.json", "pub/b/old/buildhub.json"]);
        let filter = filter.suffix("x").include("pub/b/*").unwrap().include("x").unwrap().exclude("*/old/*").unwrap();
        assert_eq!(meant(&filter), ["pub/b/buildhub.json", "x"]);
        assert_eq!(meant(&filter.regex("^pub/").unwrap()), ["pub/b/buildhub.json"]);
    }

    #[test]
    fn globs_see_what_is_below_the_prefix() {
        let filter = KeyFilter::all().include("b*").unwrap().below("pub/a");
        assert_eq!(meant(&filter), ["pub/b/buildhub.json", "pub/b/old/buildhub.json"]);
    }

    #[test]
    fn what_is_no_pattern_is_refused() {
        let glob = KeyFilter::all().include("a[").unwrap_err();
        assert_eq!(glob.to_string(), "error parsing glob 'a[': unclosed character class; missing ']'");
        assert!(KeyFilter::all().regex("(").is_err());
    }

    #[test]
    fn an_identity_tells_filters_apart() {
        let filters = [
            KeyFilter::all(),
            KeyFilter::all().suffix("a"),
            KeyFilter::all().include("a").unwrap(),
            KeyFilter::all().exclude("a").unwrap(),
            KeyFilter::all().regex("a").unwrap(),
            KeyFilter::all().include("a").unwrap().below("a/"),
        ];
        let mut identities: Vec<_> = filters.iter().map(KeyFilter::identity).collect();
        identities.sort();
        identities.dedup();
        assert_eq!(identities.len(), filters.len());
    }
}
