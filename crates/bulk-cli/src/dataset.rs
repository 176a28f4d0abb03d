use std::collections::BTreeMap;
use std::path::Path;

use bulk_pg::{Dialect, TableName};
use jiff::civil::Date;
use serde::Deserialize;

use crate::arguments::BucketArguments;
use crate::exit::Failure;

/// The built-in catalogue: each data set is one data file.
const CATALOGUE: &[(&str, &str)] = &[("courtlistener", include_str!("../catalogue/courtlistener.toml"))];

/// A data set: where its files are, and which table each belongs to.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Dataset {
    pub(crate) title: String,
    pub(crate) source: String,
    pub(crate) endpoint: Option<String>,
    pub(crate) region: Option<String>,
    #[serde(default)]
    pub(crate) anonymous: bool,
    #[serde(default)]
    pub(crate) optional: Vec<String>,
    #[serde(default)]
    dialect: Vec<Era>,
    /// Base name to table.
    tables: BTreeMap<String, String>,
    /// Table to column to value.
    #[serde(default)]
    pub(crate) fill: BTreeMap<String, BTreeMap<String, String>>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Era {
    from: Date,
    name: String,
}

impl Dataset {
    /// Finds a data set by its name in the catalogue, or reads the file of that name. `others`: what else may be named there, for
    /// who has not named one.
    pub(crate) fn find(name: &str, others: &str) -> Result<Self, Failure> {
        let text = match CATALOGUE.iter().find(|(known, _)| *known == name) {
            Some((_, text)) => (*text).to_owned(),
            None if Path::new(name).extension().is_some_and(|extension| extension == "toml") => {
                std::fs::read_to_string(name).map_err(|error| Failure::usage(format!("cannot read {name}: {error}")))?
            }
            None => {
                let known = CATALOGUE.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ");
                return Err(Failure::usage(format!(
                    "there is no data set {name:?}; the catalogue has {known}, one of your own is a .toml file{others}"
                )));
            }
        };
        let dataset: Self = toml::from_str(&text).map_err(|error| Failure::usage(format!("{name}: {error}")))?;
        dataset.tables()?;
        dataset.dialect_hint(Date::MAX)?;
        Ok(dataset)
    }

    /// Where what a user names is, and how it is asked: a URL as it stands, else the source of a data set.
    pub(crate) fn locate(named: &str, flags: &BucketArguments) -> Result<(String, BucketArguments), Failure> {
        Self::locate_among(named, flags, "; a bucket is s3://bucket/prefix, and a folder is file:///folder")
    }

    /// The same for what has to be a bucket.
    pub(crate) fn locate_bucket(named: &str, flags: &BucketArguments) -> Result<(String, BucketArguments), Failure> {
        Self::locate_among(named, flags, "; a bucket is s3://bucket/prefix")
    }

    fn locate_among(named: &str, flags: &BucketArguments, others: &str) -> Result<(String, BucketArguments), Failure> {
        if named.contains("://") {
            return Ok((named.to_owned(), flags.clone()));
        }
        let dataset = Self::find(named, others)?;
        let arguments = dataset.bucket_arguments(flags);
        Ok((dataset.source, arguments))
    }

    /// Base names with their tables.
    pub(crate) fn tables(&self) -> Result<BTreeMap<String, TableName>, Failure> {
        let table = |(base, table): (&String, &String)| {
            let name = table.parse().map_err(|error| Failure::usage(format!("table of {base}: {error}")))?;
            Ok((base.clone(), name))
        };
        self.tables.iter().map(table).collect()
    }

    /// How its bucket is asked, where flags say nothing else.
    pub(crate) fn bucket_arguments(&self, flags: &BucketArguments) -> BucketArguments {
        BucketArguments {
            endpoint: flags.endpoint.clone().or_else(|| self.endpoint.clone()),
            region: flags.region.clone().or_else(|| self.region.clone()),
            anonymous: flags.anonymous || self.anonymous,
            requester_pays: flags.requester_pays,
        }
    }

    /// What a file of that date probably is.
    pub(crate) fn dialect_hint(&self, date: Date) -> Result<Option<Dialect>, Failure> {
        let era = self.dialect.iter().filter(|era| era.from <= date).max_by_key(|era| era.from);
        era.map(|era| era.name.parse().map_err(|error| Failure::usage(format!("dialect {}: {error}", era.name))))
            .transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_catalogue_is_valid() {
        for (name, _) in CATALOGUE {
            Dataset::find(name, "").unwrap();
        }
        let dataset = Dataset::find("courtlistener", "").unwrap();
        assert_eq!(dataset.tables().unwrap().len(), 33);
        let hint = |date: &str| dataset.dialect_hint(date.parse().unwrap()).unwrap().map(|dialect| dialect.name());
        assert_eq!(
            ["2022-07-31", "2022-08-31", "2023-12-04", "2024-07-31", "2024-12-31", "2025-01-23", "2026-06-30"]
                .map(hint),
            [None, Some("A"), Some("B"), Some("C"), Some("C"), Some("D"), Some("D")]
        );
    }
}
