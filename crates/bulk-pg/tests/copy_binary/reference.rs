//! What the server makes of a value, and values in random spellings.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::pin::pin;

use bulk_pg::{BinaryType, CopyBinary, Dialect, RecordOptions, Records, Session, Source, Unencoded};
use bytes::Bytes;
use futures::{SinkExt, TryStreamExt};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, TestRunner};

use crate::support::Bench;

/// Spellings of each type.
pub(crate) const SPELLINGS: usize = 1000;

/// How many values had which outcome.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    pub(crate) understood: usize,
    pub(crate) unclear: usize,
    pub(crate) invalid: usize,
    /// Of the invalid ones: the server says the very same.
    pub(crate) same_words: usize,
}

pub(crate) struct Reference {
    pub(crate) session: Session,
    pub(crate) _bench: Bench,
}

#[derive(Debug)]
pub(crate) struct Refused {
    pub(crate) sqlstate: String,
    pub(crate) message: String,
    pub(crate) place: String,
}

impl Reference {
    pub(crate) async fn new() -> Self {
        let bench = Bench::new("binary", "");
        let session = bench.session().await;
        Self { session, _bench: bench }
    }

    pub(crate) async fn run(&self, sql: &str) {
        self.session.client().batch_execute(sql).await.unwrap();
    }

    pub(crate) async fn copy_in(&self, statement: &str, data: Vec<u8>) -> Result<u64, Refused> {
        let sent = async {
            let mut sink = pin!(self.session.client().copy_in::<_, Bytes>(statement).await?);
            sink.send(data.into()).await?;
            sink.finish().await
        };
        sent.await.map_err(|error: tokio_postgres::Error| {
            let error = error.as_db_error().expect("the server answers");
            Refused {
                sqlstate: error.code().code().to_owned(),
                message: error.message().to_owned(),
                place: error.where_().unwrap_or_default().to_owned(),
            }
        })
    }

    pub(crate) async fn copy_out(&self, query: &str) -> Vec<u8> {
        let statement = format!("COPY ({query}) TO STDOUT (FORMAT binary)");
        let chunks = self.session.client().copy_out(&statement).await.unwrap();
        chunks.try_collect::<Vec<Bytes>>().await.unwrap().concat()
    }

    pub(crate) async fn binary_type(&self, table: &str, column: &str) -> Option<BinaryType> {
        let sql = "SELECT atttypid, atttypmod FROM pg_attribute WHERE attrelid = $1::text::regclass AND attname = $2";
        let row = self.session.client().query_one(sql, &[&table, &column]).await.unwrap();
        BinaryType::new(row.get(0), row.get(1))
    }

    /// Compares so many spellings, without those that come twice.
    pub(crate) async fn spellings(
        &self,
        type_name: &str,
        count: usize,
        strategy: impl Strategy<Value = String>,
    ) -> Seen {
        let mut runner = TestRunner::new(Config::default());
        let values: BTreeSet<String> = (0..count).map(|_| strategy.new_tree(&mut runner).unwrap().current()).collect();
        self.compare(type_name, &Vec::from_iter(values)).await
    }

    /// Sends the values to two columns of this type, as text and as binary. Nothing of it stays.
    pub(crate) async fn compare(&self, type_name: &str, values: &[String]) -> Seen {
        self.run("BEGIN").await;
        self.run(&format!("CREATE TABLE a (n int, v {type_name}); CREATE TABLE b (LIKE a)")).await;
        let of_value = self.binary_type("a", "v").await.expect("the type can be encoded");
        let of_number = self.binary_type("a", "n").await.unwrap();

        let mut seen = Seen::default();
        let (mut text, mut binary) = (Vec::new(), CopyBinary::HEADER.to_vec());
        let mut refused = Vec::new();
        for (index, dialect) in Dialect::ERAS.into_iter().enumerate() {
            let values: Vec<_> = values.iter().enumerate().skip(index).step_by(Dialect::ERAS.len()).collect();
            let csv = csv(&values, dialect);
            let mut records = Records::new(&csv[..], dialect, RecordOptions::default()).unwrap();
            let columns = [(Source::Field(0), of_number), (Source::Field(1), of_value)];
            let mut encoder = CopyBinary::new(&columns, 2).unwrap();
            for (number, value) in values {
                let record = records.next_record().unwrap().unwrap();
                let before = binary.clone();
                match encoder.append(&record, &mut binary) {
                    Ok(()) => {
                        copy_text_row(number, value, &mut text);
                        seen.understood += 1;
                    }
                    Err(refusal) => {
                        assert_eq!(refusal.column(), 1);
                        assert!(binary == before, "{value:?}");
                        match refusal {
                            Unencoded::Unclear { .. } => seen.unclear += 1,
                            Unencoded::Invalid { sqlstate, message, .. } => {
                                seen.invalid += 1;
                                refused.push((value, sqlstate, message));
                            }
                            other => panic!("{other:?}"),
                        }
                    }
                }
            }
        }
        binary.extend_from_slice(&CopyBinary::TRAILER);

        // What the encoder understands does not depend on these.
        self.run("SET LOCAL datestyle = 'Postgres, DMY'; SET LOCAL timezone = 'Asia/Kathmandu'").await;
        let taken = |copied: Result<u64, Refused>| match copied {
            Ok(rows) => rows,
            Err(refused) => panic!("{type_name}: {}, {}", refused.message, refused.place),
        };
        let rows = seen.understood as u64;
        assert_eq!(taken(self.copy_in("COPY a FROM STDIN", text).await), rows);
        assert_eq!(taken(self.copy_in("COPY b FROM STDIN (FORMAT binary)", binary).await), rows);
        let differing = "SELECT n, a.v::text, b.v::text FROM a FULL JOIN b USING (n)
             WHERE a.v::text IS DISTINCT FROM b.v::text ORDER BY n";
        if let Some(row) = self.session.client().query(differing, &[]).await.unwrap().first() {
            let (number, theirs, ours): (i32, Option<&str>, Option<&str>) = (row.get(0), row.get(1), row.get(2));
            panic!("{type_name} {:?} is {theirs:?}, and ours {ours:?}", values[number as usize]);
        }
        // Down to the last bit.
        let (theirs, ours) = ("SELECT * FROM a ORDER BY n", "SELECT * FROM b ORDER BY n");
        assert!(self.copy_out(theirs).await == self.copy_out(ours).await, "{type_name}");

        self.run("SAVEPOINT s").await;
        for (value, sqlstate, message) in refused {
            let mut row = Vec::new();
            copy_text_row(0, value, &mut row);
            let Err(theirs) = self.copy_in("COPY a FROM STDIN", row).await else {
                panic!("{type_name} {value:?}: {message}; and the server takes it");
            };
            self.run("ROLLBACK TO s").await;
            assert_eq!(theirs.sqlstate[..2], sqlstate[..2], "{type_name} {value:?}: {message}; {theirs:?}");
            seen.same_words += usize::from(theirs.sqlstate == sqlstate && theirs.message == message);
        }
        self.run("ROLLBACK").await;
        seen
    }
}

/// Two columns, of which the first is a number.
pub(crate) fn csv(values: &[(usize, &String)], dialect: Dialect) -> Vec<u8> {
    let mut csv = "n,v\n".to_owned();
    let (quote, escape) = (char::from(dialect.quote()), char::from(dialect.escape()));
    for (number, value) in values {
        let plain = dialect == Dialect::A && !value.is_empty() && !value.contains([quote, ',', '\n', '\r']);
        let number_quote = if dialect == Dialect::A { String::new() } else { quote.to_string() };
        write!(csv, "{number_quote}{number}{number_quote},").unwrap();
        if plain {
            csv.push_str(value);
        } else {
            csv.push(quote);
            for character in value.chars() {
                if character == quote || character == escape {
                    csv.push(escape);
                }
                csv.push(character);
            }
            csv.push(quote);
        }
        csv.push('\n');
    }
    csv.into_bytes()
}

fn copy_text_row(number: usize, value: &str, out: &mut Vec<u8>) {
    let escaped = value.replace('\\', "\\\\").replace('\t', "\\t").replace('\n', "\\n").replace('\r', "\\r");
    out.extend_from_slice(format!("{number}\t{escaped}\n").as_bytes());
}

/// What the strategy gives, a third of it with a small change or two.
pub(crate) fn edited(valid: impl Strategy<Value = String>, alphabet: &'static str) -> impl Strategy<Value = String> {
    let alphabet: Vec<char> = alphabet.chars().collect();
    let edit = (any::<prop::sample::Index>(), 0..3, prop::sample::select(alphabet));
    (valid, prop_oneof![2 => Just(Vec::new()), 1 => vec(edit, 1..3)]).prop_map(|(text, edits)| {
        let mut text: Vec<char> = text.chars().collect();
        for (place, kind, character) in edits {
            let at = place.index(text.len() + 1);
            match kind {
                0 => text.insert(at, character),
                1 if at < text.len() => text[at] = character,
                2 if at < text.len() => drop(text.remove(at)),
                _ => text.push(character),
            }
        }
        text.into_iter().collect()
    })
}

pub(crate) fn any_of(characters: &'static str, count: std::ops::Range<usize>) -> impl Strategy<Value = String> {
    let characters: Vec<char> = characters.chars().collect();
    vec(prop::sample::select(characters), count).prop_map(String::from_iter)
}

pub(crate) fn one_of(words: &'static [&'static str]) -> impl Strategy<Value = String> {
    prop::sample::select(words).prop_map(str::to_owned)
}

/// With blanks around it now and then.
pub(crate) fn spaced(text: impl Strategy<Value = String>) -> impl Strategy<Value = String> {
    let space = || prop_oneof![8 => Just(""), 1 => Just(" "), 1 => Just("\t \n"), 1 => Just("\u{b}\u{c}\r")];
    (space(), text, space()).prop_map(|(before, text, after)| format!("{before}{text}{after}"))
}
