use std::fmt;
use std::str::FromStr;

use crate::content::{expressions, types};
use crate::ledger::unsigned;
use crate::{Content, Count, Error, Ident, Session, TableName, count_rows};

/// How far a table is compared with the files that were loaded into it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Verification {
    /// Not at all.
    None,
    /// By the number of its rows.
    #[default]
    Count,
    /// By the number of its rows and their [`Content`].
    Full,
}

impl fmt::Display for Verification {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "none",
            Self::Count => "count",
            Self::Full => "full",
        })
    }
}

/// Not `none`, `count` or `full`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is none of count, full and none")]
#[non_exhaustive]
pub struct UnknownVerification {
    /// The text.
    pub text: String,
}

impl FromStr for Verification {
    type Err = UnknownVerification;

    fn from_str(text: &str) -> Result<Self, UnknownVerification> {
        match text {
            "none" => Ok(Self::None),
            "count" => Ok(Self::Count),
            "full" => Ok(Self::Full),
            other => Err(UnknownVerification { text: other.to_owned() }),
        }
    }
}

/// Compares tables with what was loaded into them, as the ledger has it. No file is read.
///
/// The content of a table is one number, which the order of its rows does not change: the server computes it in one
/// statement over the table, with parallel workers where it has them, and what it is to be was computed out of the files
/// while they were loaded with [`LoadOptions::hash_content`](crate::LoadOptions::hash_content), and stands in `bulk.chunk`.
/// It is of the columns that the files had; columns that got their defaults are no part of it, nor are records that were
/// left out.
///
/// ```
/// use bulk_pg::{
///     ContentVerdict, FileIdentity, Input, LoadOptions, Plain, Session, Verification, Verifier, load, prepare_ledger,
/// };
///
/// # let server = bulk_testkit::postgres::shared().unwrap();
/// # let database = server.create_database("doc").unwrap();
/// # let url = database.url();
/// # tokio::runtime::Runtime::new().unwrap().block_on(async {
/// let mut sessions = [Session::connect(url).await?];
/// sessions[0].client().batch_execute("CREATE TABLE court (id text, name text)").await.unwrap();
/// prepare_ledger(&sessions[0]).await?;
///
/// let csv = &b"id,name\nscotus,Supreme Court\nca9,Ninth Circuit\n"[..];
/// let file = FileIdentity::new("courts.csv", None, csv.len() as u64);
/// let table = "court".parse().unwrap();
/// let mut options = LoadOptions::default();
/// options.hash_content = true;
/// load(&mut sessions, &table, &file, move || Ok(Box::new(Plain(csv)) as Box<dyn Input>), &options).await?;
///
/// let verifier = Verifier::new(Verification::Full);
/// assert!(verifier.verify(&sessions[0], &table).await?.matches());
///
/// sessions[0].client().batch_execute("UPDATE court SET name = 'ninth' WHERE id = 'ca9'").await.unwrap();
/// let verified = verifier.verify(&sessions[0], &table).await?;
/// assert!(matches!(verified.content, Some(ContentVerdict::Differs { .. })));
/// # Ok::<(), bulk_pg::Error>(())
/// # }).unwrap();
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Verifier {
    verification: Verification,
}

/// What a [`Verifier`] found.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Verified {
    /// The table.
    pub table: TableName,
    /// How many rows it has and should have, if they were counted.
    pub count: Option<Count>,
    /// What became of their content, if it was asked for.
    pub content: Option<ContentVerdict>,
}

impl Verified {
    /// Whether nothing differs of what was compared. Content that could not be compared does not differ.
    pub fn matches(&self) -> bool {
        self.count.as_ref().is_none_or(Count::matches) && !matches!(self.content, Some(ContentVerdict::Differs { .. }))
    }
}

/// How the content of a table compares with that of its files.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ContentVerdict {
    /// It is the same.
    Same {
        /// The content.
        content: Content,
    },
    /// It is another one.
    Differs {
        /// The content of the files.
        loaded: Content,
        /// The table's.
        found: Content,
    },
    /// That of the files is not known, or is of no use.
    Unknown {
        /// Why, and what to do.
        why: String,
    },
}

impl Verifier {
    /// A verifier that goes so far.
    pub fn new(verification: Verification) -> Self {
        Self { verification }
    }

    /// Compares a table with the files that were loaded into it. Rows and ledger are seen as they are at one moment. The
    /// ledger must be [prepared](crate::prepare_ledger); a drop leaves nothing behind.
    ///
    /// # Errors
    ///
    /// [`Error::Database`].
    pub async fn verify(&self, session: &Session, table: &TableName) -> Result<Verified, Error> {
        let mut verified = Verified { table: table.clone(), count: None, content: None };
        match self.verification {
            Verification::None => {}
            Verification::Count => verified.count = Some(count_rows(session, table).await?),
            Verification::Full => match hashed_columns(session, table).await? {
                Ok(columns) => {
                    let (count, loaded, found) = count_and_hash(session, table, &columns).await?;
                    verified.content = Some(match loaded {
                        None => ContentVerdict::Unknown { why: UNHASHED.to_owned() },
                        Some(loaded) if loaded == found => ContentVerdict::Same { content: found },
                        Some(loaded) => ContentVerdict::Differs { loaded, found },
                    });
                    verified.count = Some(count);
                }
                Err(why) => {
                    verified.count = Some(count_rows(session, table).await?);
                    verified.content = Some(ContentVerdict::Unknown { why });
                }
            },
        }
        Ok(verified)
    }
}

const UNHASHED: &str = "rows of it were loaded without --verify=full, so that their content is not known; to have it \
                        compared, load the table anew with --restart --verify=full";

/// The columns that all files of a table were hashed by, as SQL lists them; or why there are none.
async fn hashed_columns(session: &Session, table: &TableName) -> Result<Result<String, String>, Error> {
    let now = types("l.target_oid", "l.content_columns");
    let sql = format!(
        "SELECT l.content_columns, l.content_types IS NOT DISTINCT FROM {now},
                EXISTS (SELECT FROM bulk.chunk c WHERE c.load_id = l.id AND c.content IS NULL), l.file_key
         FROM bulk.load l
         WHERE l.target_schema = $1 AND l.target_table = $2 AND l.finished_at IS NOT NULL
           AND l.target_oid = $3::text::pg_catalog.regclass
         ORDER BY l.id"
    );
    let loads = session
        .client()
        .query(&sql, &[&table.schema.as_str(), &table.name.as_str(), &table.to_string()])
        .await
        .map_err(Error::database(format!("read what is known of the content of {table:#}")))?;
    let mut all: Option<(Vec<String>, String)> = None;
    for load in &loads {
        let key: String = load.get(3);
        let Some(columns) = load.get::<_, Option<Vec<String>>>(0).filter(|_| !load.get::<_, bool>(2)) else {
            return Ok(Err(UNHASHED.to_owned()));
        };
        if !load.get::<_, bool>(1) {
            return Ok(Err(format!(
                "columns of it were altered since {key} was loaded, so that its content is another"
            )));
        }
        match &all {
            Some((first, other)) if *first != columns => {
                return Ok(Err(format!(
                    "{other} and {key} have different columns, so that nothing can be compared with both together"
                )));
            }
            Some(_) => {}
            None => all = Some((columns, key)),
        }
    }
    let Some((columns, _)) = all else { return Ok(Err("no file was loaded into it".to_owned())) };
    let quoted: Result<Vec<_>, _> =
        columns.into_iter().map(|name| Ident::new(name).map(|name| name.to_string())).collect();
    Ok(quoted.map(|names| names.join(", ")).map_err(|error| error.to_string()))
}

/// Rows and content of a table, and what they should be: at one moment, since it is one statement.
async fn count_and_hash(
    session: &Session,
    table: &TableName,
    columns: &str,
) -> Result<(Count, Option<Content>, Content), Error> {
    let sql = format!(
        "SELECT t.rows, t.sum::text, l.records, l.rejected, l.filtered, l.content::text
         FROM (SELECT {} FROM {table}) t(rows, sum),
              (SELECT coalesce(sum(records), 0)::bigint records, coalesce(sum(rejected), 0)::bigint rejected,
                      coalesce(sum(filtered), 0)::bigint filtered,
                      CASE WHEN NOT coalesce(bool_or(unknown), false) THEN coalesce(sum(content - content_gone), 0) END AS content
               FROM bulk.load, LATERAL (SELECT sum(content) content, bool_or(content IS NULL) unknown
                                        FROM bulk.chunk WHERE load_id = id) c
               WHERE target_schema = $1 AND target_table = $2 AND finished_at IS NOT NULL
                 AND target_oid = $3::text::pg_catalog.regclass) l",
        expressions(columns)
    );
    let row = session
        .client()
        .query_one(&sql, &[&table.schema.as_str(), &table.name.as_str(), &table.to_string()])
        .await
        .map_err(Error::database(format!("hash the rows of {table:#}")))?;
    let found = Content::read(&row, 0);
    let [records, rejected, filtered] = [2, 3, 4].map(|place| unsigned(row.get(place)));
    let count = Count { table: table.clone(), records, rejected, filtered, rows: found.rows };
    let sum = row.get::<_, Option<&str>>(5).and_then(|text| text.parse().ok());
    let loaded = sum.map(|sum| Content { rows: count.loaded(), sum });
    Ok((count, loaded, found))
}
