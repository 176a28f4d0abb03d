//! What was perhaps meant by a name that stands for nothing.

use crate::{Error, Session, TableName};

/// Tables that are looked at, at most.
const MOST: usize = 10_000;
/// Names that are told, at most.
const TOLD: usize = 3;

/// The error for a table that is not there, with those whose names are like its own.
pub(crate) async fn no_table(session: &Session, table: &TableName) -> Error {
    let sql = format!(
        "SELECT n.nspname::text, c.relname::text
         FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
         WHERE c.relkind IN ('r', 'p') AND n.nspname !~ '^(pg_|bulk_next_|information_schema$|bulk$)'
         ORDER BY n.nspname, c.relname LIMIT {MOST}"
    );
    // Who cannot list them is told that there is none, which is what counts.
    let rows = session.client().query(&sql, &[]).await.unwrap_or_default();
    let names = rows.iter().filter_map(|row| {
        let (schema, name): (String, String) = (row.get(0), row.get(1));
        Some((distance(table.name.as_str(), &name)?, TableName::new(schema, name).ok()?))
    });
    let mut near: Vec<_> = names.collect();
    near.sort_by_key(|(distance, near)| (*distance, near.schema.as_str() != table.schema.as_str()));
    let near = near.into_iter().take(TOLD).map(|(_, name)| name).collect();
    Error::NoTable { table: table.clone(), near }
}

/// In how many letters they differ, if these are few; case is none.
fn distance(one: &str, other: &str) -> Option<usize> {
    let letters = |name: &str| name.to_lowercase().chars().collect::<Vec<_>>();
    let (one, other) = (letters(one), letters(other));
    let most = (one.len().max(other.len()) / 3).min(2);
    if one.len().abs_diff(other.len()) > most {
        return None;
    }
    // Levenshtein's: of each beginning of the one to all beginnings of the other.
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (place, letter) in one.iter().enumerate() {
        let mut before = std::mem::replace(&mut row[0], place + 1);
        for (at, of_other) in other.iter().enumerate() {
            let changed = before + usize::from(letter != of_other);
            before = row[at + 1];
            row[at + 1] = changed.min(before + 1).min(row[at] + 1);
        }
    }
    row.last().copied().filter(|distance| *distance <= most)
}

#[cfg(test)]
mod tests {
    use super::distance;

    #[test]
    fn names_are_near_that_differ_in_few_letters() {
        for (one, other, apart) in [
            ("people", "people", Some(0)),
            ("People", "people", Some(0)),
            ("poeple", "people", Some(2)),
            ("peple", "people", Some(1)),
            ("persons", "people", None),
            ("search_dockets", "search_docket", Some(1)),
            ("ab", "ac", None),
            ("abc", "abd", Some(1)),
            ("", "a", None),
        ] {
            assert_eq!(distance(one, other), apart, "{one}, {other}");
        }
    }
}
