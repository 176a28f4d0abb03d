use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use globset::{GlobBuilder, GlobMatcher};

use crate::exit::Failure;

/// What an argument of `bulk load` means.
pub(super) enum Given {
    File(PathBuf),
    Stdin,
    /// A URL of one file.
    Web(String),
    Bucket {
        name: String,
        keys: Keys,
    },
}

/// Which objects of a bucket.
pub(super) enum Keys {
    One(String),
    /// All below a prefix.
    Below(String),
    /// Those below a prefix that match.
    Matching {
        prefix: String,
        glob: GlobMatcher,
    },
}

impl Given {
    pub(super) fn parse(argument: &Path) -> Result<Self, Failure> {
        if argument.as_os_str() == OsStr::new("-") {
            return Ok(Self::Stdin);
        }
        let Some((scheme, rest)) = argument.to_str().and_then(|text| text.split_once("://")) else {
            return Ok(Self::File(argument.to_owned()));
        };
        match scheme {
            "http" | "https" => Ok(Self::Web(format!("{scheme}://{rest}"))),
            "file" if rest.starts_with('/') => Ok(Self::File(PathBuf::from(rest))),
            "s3" => {
                let (name, key) = rest.split_once('/').unwrap_or((rest, ""));
                Ok(Self::Bucket { name: name.to_owned(), keys: Keys::parse(key)? })
            }
            _ if argument.exists() => Ok(Self::File(argument.to_owned())),
            // The rest of it may hold a password.
            _ => Err(Failure::usage(format!(
                "{scheme}://…: a file is a path, -, https://host/file, s3://bucket/key, or file:///path"
            ))),
        }
    }
}

impl Keys {
    fn parse(key: &str) -> Result<Self, Failure> {
        if let Some(at) = key.find(['*', '?', '[', '{', '\\']) {
            // A pattern means files of one folder, as in a shell.
            let glob = GlobBuilder::new(key).literal_separator(true).backslash_escape(true).build();
            let glob = glob.map_err(|error| Failure::usage(format!("s3://…/{key}: {error}")))?;
            return Ok(Self::Matching { prefix: key[..at].to_owned(), glob: glob.compile_matcher() });
        }
        Ok(if key.is_empty() || key.ends_with('/') { Self::Below(key.to_owned()) } else { Self::One(key.to_owned()) })
    }

    /// What to list, or to open where there is nothing to list.
    pub(super) fn prefix(&self) -> &str {
        match self {
            Self::One(prefix) | Self::Below(prefix) | Self::Matching { prefix, .. } => prefix,
        }
    }

    pub(super) fn takes(&self, key: &str) -> bool {
        match self {
            Self::One(one) => key == one,
            // Keys that end so stand for folders.
            Self::Below(_) => !key.ends_with('/'),
            Self::Matching { glob, .. } => glob.is_match(key),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(argument: &str) -> Keys {
        match Given::parse(Path::new(argument)) {
            Ok(Given::Bucket { keys, .. }) => keys,
            _ => panic!("{argument} is in no bucket"),
        }
    }

    #[test]
    fn a_pattern_means_files_of_one_folder() {
        let pattern = keys("s3://b/p/*.csv.{gz,bz2}");
        assert_eq!(pattern.prefix(), "p/");
        let taken =
            ["p/a.csv.gz", "p/.csv.bz2", "p/a.csv", "p/q/a.csv.gz", "p/a.csv.gz/"].map(|key| pattern.takes(key));
        assert_eq!(taken, [true, true, false, false, false]);
        assert!(keys("s3://b/p/**/*.csv").takes("p/q/r/a.csv"));
        let escaped = keys(r"s3://b/data\[1\].csv");
        assert_eq!(escaped.prefix(), "data");
        assert!(escaped.takes("data[1].csv") && !escaped.takes("data1.csv"));
    }

    #[test]
    fn what_ends_in_a_slash_means_all_below_it() {
        for (argument, prefix) in [("s3://b", ""), ("s3://b/", ""), ("s3://b/p/", "p/")] {
            let keys = keys(argument);
            assert_eq!(keys.prefix(), prefix);
            assert!(keys.takes("p/q/a.csv") && !keys.takes("p/q/"), "{argument}");
        }
        assert!(matches!(keys("s3://b/p"), Keys::One(key) if key == "p"));
    }

    #[test]
    fn what_is_no_place_is_a_path() {
        for path in ["a.csv", "/a/b.csv", "dir/-", "https:/a", "file:///srv/a.csv"] {
            assert!(matches!(Given::parse(Path::new(path)), Ok(Given::File(_))), "{path}");
        }
        assert!(matches!(Given::parse(Path::new("-")), Ok(Given::Stdin)));
        assert!(matches!(Given::parse(Path::new("http://h/a")), Ok(Given::Web(_))));
        let failure = Given::parse(Path::new("ftp://user:secret@h/a")).err().unwrap();
        assert!(!failure.error.to_string().contains("secret"), "{}", failure.error);
    }
}
