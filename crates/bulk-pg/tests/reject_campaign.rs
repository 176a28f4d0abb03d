//! The reject campaign: bad records of every kind, sown at random into a narrow table's file. Exactly those are left out,
//! each with its number, its place, its bytes and what is wrong with it.
//!
//! `BULK_CAMPAIGN_SEED` repeats a run, which says its seed where it fails. `BULK_CAMPAIGN_RECORDS=1000000 cargo test -p
//! bulk-pg --test reject_campaign` takes as many records as the rates speak of.

#![allow(clippy::print_stdout, reason = "the seed repeats a failure")]

mod support;

use std::collections::BTreeSet;
use std::pin::pin;

use bulk_pg::{CopyFormat, Dialect, Error, LoadOptions, Loaded, Quoting, Session, load, restart, write_rejects};
use bytes::Bytes;
use futures::SinkExt;
use support::{Bench, chain, file, table, whole};

const TABLES: &str = "
    CREATE TABLE t (
        id integer PRIMARY KEY,
        day date NOT NULL,
        code varchar(5),
        amount integer CHECK (amount >= 0),
        note text
    );
    CREATE TABLE expected (LIKE t)";

const NAMES: [&str; 5] = ["id", "day", "code", "amount", "note"];

/// From one key to the next.
const STEP: u64 = 3;

/// What can be wrong with a record.
#[derive(Clone, Copy, Debug)]
enum Fault {
    NoInteger,
    GreatInteger,
    NoSuchDay,
    NoDate,
    /// A date that the server alone reads.
    NoSuchWordyDay,
    Null,
    Long,
    Nul,
    NotUtf8,
    Few,
    Many,
    Duplicate,
    Check,
}

impl Fault {
    const ALL: [Self; 13] = [
        Self::NoInteger,
        Self::GreatInteger,
        Self::NoSuchDay,
        Self::NoDate,
        Self::NoSuchWordyDay,
        Self::Null,
        Self::Long,
        Self::Nul,
        Self::NotUtf8,
        Self::Few,
        Self::Many,
        Self::Duplicate,
        Self::Check,
    ];

    /// The column that is to be named, and the SQLSTATE (PostgreSQL manual, appendix "PostgreSQL Error Codes").
    fn expected(self) -> (Option<&'static str>, &'static str) {
        match self {
            Self::NoInteger => (Some("id"), "22P02"),
            Self::GreatInteger => (Some("amount"), "22003"),
            Self::NoSuchDay | Self::NoSuchWordyDay => (Some("day"), "22008"),
            Self::NoDate => (Some("day"), "22007"),
            Self::Null => (Some("day"), "23502"),
            Self::Long => (Some("code"), "22001"),
            Self::Nul | Self::NotUtf8 => (Some("note"), "22021"),
            Self::Few | Self::Many => (None, "22P04"),
            Self::Duplicate => (None, "23505"),
            Self::Check => (None, "23514"),
        }
    }

    fn spoil(self, fields: &mut Vec<Option<Vec<u8>>>, earlier: u64) {
        let mut set = |place: usize, value: &[u8]| fields[place] = Some(value.to_vec());
        match self {
            Self::NoInteger => set(0, b"12x"),
            Self::GreatInteger => set(3, b"3000000000"),
            Self::NoSuchDay => set(1, b"2021-02-29"),
            Self::NoDate => set(1, b"never"),
            Self::NoSuchWordyDay => set(1, b"January 32, 1999"),
            Self::Null => fields[1] = None,
            Self::Long => set(2, "ääääää".as_bytes()),
            Self::Nul => set(4, b"x\0y"),
            Self::NotUtf8 => set(4, b"caf\xe9"),
            Self::Few => drop(fields.pop()),
            Self::Many => fields.push(Some(b"more".to_vec())),
            Self::Duplicate => set(0, earlier.to_string().as_bytes()),
            Self::Check => set(3, b"-1"),
        }
    }
}

/// A record that is to be left out.
struct Bad {
    record: u64,
    byte: u64,
    raw: Vec<u8>,
    fault: Fault,
}

impl Bad {
    /// As psql prints what was noted of it.
    fn line(&self) -> String {
        let (column, sqlstate) = self.fault.expected();
        let raw: String = self.raw.iter().map(|byte| format!("{byte:02x}")).collect();
        format!("{}|{}|{}|{sqlstate}|{raw}", self.record, self.byte, column.unwrap_or_default())
    }

    /// The record before it that has its key.
    fn twin(&self) -> u64 {
        let digits = self.raw.iter().skip_while(|byte| !byte.is_ascii_digit()).take_while(|byte| byte.is_ascii_digit());
        digits.fold(0, |id, digit| 10 * id + u64::from(digit - b'0')) / STEP
    }

    #[track_caller]
    fn assert_named(&self, error: &Error, limit: u64, what: &str) {
        let Error::Rejects { limit: of, record, offset, column, sqlstate, .. } = error else {
            panic!("{what}: {}", chain(error));
        };
        assert_eq!((*of, *record, *offset), (limit, self.record, self.byte), "{what}: {}", chain(error));
        assert_eq!((column.as_deref(), &**sqlstate), self.fault.expected(), "{what}: {}", chain(error));
    }
}

/// A file with bad records in it.
struct Sown {
    dialect: Dialect,
    csv: Vec<u8>,
    /// The same without the bad records.
    good: Vec<u8>,
    records: u64,
    bad: Vec<Bad>,
}

impl Sown {
    /// `records` records, of which the `faults` are bad, in any places but the first.
    fn new(random: &mut fastrand::Rng, records: u64, faults: &[Fault]) -> Self {
        let mut places = BTreeSet::new();
        while places.len() < faults.len() {
            let place = random.u64(2..=records);
            places.insert(place);
            // Some stand side by side.
            if places.len() < faults.len() && place < records && random.u8(..4) == 0 {
                places.insert(place + 1);
            }
        }
        let mut faults = faults.to_vec();
        random.shuffle(&mut faults);
        let mut faults = places.into_iter().zip(faults).peekable();

        let dialect = Dialect::ERAS[random.usize(..4)];
        let newline: &[u8] = if random.bool() { b"\n" } else { b"\r\n" };
        let is_ended = random.bool();
        let mut header = NAMES.join(",").into_bytes();
        header.extend_from_slice(newline);
        let mut sown = Self { dialect, csv: header.clone(), good: header, records, bad: Vec::new() };
        let mut ids = Vec::new();
        for record in 1..=records {
            let id = STEP * record;
            let mut fields = good_fields(random, id);
            let fault = faults.next_if(|(place, _)| *place == record).map(|(_, fault)| fault);
            match fault {
                // One of the same chunk, or of any other before it.
                Some(fault) => {
                    let from = if random.bool() { ids.len().saturating_sub(20) } else { 0 };
                    fault.spoil(&mut fields, ids[random.usize(from..ids.len())]);
                }
                None => ids.push(id),
            }
            let mut raw = write(dialect, &fields);
            if record < records || is_ended {
                raw.extend_from_slice(newline);
            }
            let byte = sown.csv.len() as u64;
            sown.csv.extend_from_slice(&raw);
            match fault {
                Some(fault) => sown.bad.push(Bad { record, byte, raw, fault }),
                None => sown.good.extend_from_slice(&raw),
            }
        }
        sown
    }

    /// As many faults as a rate in a million makes, and one at least, each kind in turn.
    fn at_rate(random: &mut fastrand::Rng, records: u64, rate: u64) -> Self {
        let count = (records * rate).div_ceil(1_000_000) as usize;
        let first = random.usize(..Fault::ALL.len());
        let faults: Vec<_> = Fault::ALL.into_iter().cycle().skip(first).take(count).collect();
        Self::new(random, records, &faults)
    }

    /// A database with the good records in the table `expected`, as the server itself reads CSV.
    async fn bench(&self) -> Bench {
        let bench = Bench::new("sown", TABLES);
        let session = bench.session().await;
        let (quote, escape) = (char::from(self.dialect.quote()), char::from(self.dialect.escape()));
        let copy = format!("COPY expected FROM STDIN (FORMAT csv, HEADER, QUOTE '{quote}', ESCAPE '{escape}')");
        let mut sink = pin!(session.client().copy_in(&copy).await.unwrap());
        for piece in self.good.chunks(1 << 18) {
            sink.send(Bytes::copy_from_slice(piece)).await.unwrap();
        }
        assert_eq!(sink.finish().await.unwrap(), self.records - self.bad.len() as u64);
        bench
    }

    /// Asserts that all but the bad records are in the table, and these are noted as they ought to be.
    async fn assert_loaded(&self, bench: &Bench, loaded: &Loaded, what: &str) {
        let (records, bad) = (self.records, self.bad.len() as u64);
        assert_eq!((loaded.records, loaded.rejected), (records, bad), "{what}");
        let rejects = bench
            .psql("SELECT record, byte, \"column\", sqlstate, encode(raw, 'hex') FROM bulk.reject ORDER BY record");
        let expected: Vec<String> = self.bad.iter().map(Bad::line).collect();
        assert_same(&rejects, &expected.join("\n"), what);
        let content = |table: &str| {
            bench.psql(&format!("SELECT count(*), sum(hashtextextended(r::text, 0)::numeric) FROM {table} r"))
        };
        assert_eq!(content("t"), content("expected"), "{what}");
        let counts = "SELECT records, rejected, (SELECT sum(records) FROM bulk.chunk),
                             (SELECT sum(rejected) FROM bulk.chunk), (SELECT sum(bytes) FROM bulk.chunk)
                      FROM bulk.load WHERE finished_at IS NOT NULL";
        let bytes = self.csv.len() - self.header();
        assert_eq!(bench.psql(counts), format!("{records}|{bad}|{records}|{bad}|{bytes}"), "{what}");

        let (mut raw, mut lines) = (Vec::new(), Vec::new());
        let (session, identity) = (bench.session().await, file("t.csv", &self.csv));
        let written = write_rejects(&session, &table("t"), &identity, &mut raw, &mut lines).await.unwrap();
        assert_eq!(written, bad, "{what}");
        assert!(raw == self.bad.iter().flat_map(|bad| bad.raw.clone()).collect::<Vec<_>>(), "{what}");
        let lines: Vec<serde_json::Value> =
            lines.split_inclusive(|byte| *byte == b'\n').map(|line| serde_json::from_slice(line).unwrap()).collect();
        assert_eq!(lines.len(), self.bad.len(), "{what}");
        for (line, bad) in lines.iter().zip(&self.bad) {
            let (column, sqlstate) = bad.fault.expected();
            let message = line["message"].clone();
            assert!(message.as_str().is_some_and(|message| !message.is_empty()), "{what}: {line}");
            let expected = serde_json::json!({
                "file": "t.csv", "record": bad.record, "byte": bad.byte, "column": column, "sqlstate": sqlstate,
                "message": message,
            });
            assert_eq!(*line, expected, "{what}");
        }
    }

    /// Bytes of the header.
    fn header(&self) -> usize {
        self.csv.iter().position(|byte| *byte == b'\n').unwrap() + 1
    }
}

/// A record that the table takes.
fn good_fields(random: &mut fastrand::Rng, id: u64) -> Vec<Option<Vec<u8>>> {
    const NOTES: [&str; 7] = [
        "plain",
        "",
        "two\nlines, and \"quotes\"",
        "a back\\slash and `ticks`",
        "\r\n",
        "äöü € 😀",
        "a note that is longer than the others, and than what any of them is looked at in",
    ];
    let day = match random.u8(..100) {
        // The server alone reads these.
        0 => "January 8, 1999",
        1 => "epoch",
        _ => ["2020-02-29", "1800-01-01", "infinity", "0044-03-15 BC"][random.usize(..4)],
    };
    // Spaces beyond the length of a varchar are cut off without a word.
    let code = [Some("abc"), Some("äöüßé"), Some("abcde   "), Some(""), None][random.usize(..5)];
    let note = (random.u8(..8) > 0).then(|| NOTES[random.usize(..NOTES.len())]);
    let amount = (random.u8(..8) > 0).then(|| random.u32(..1 << 31).to_string());
    [Some(id.to_string().as_str()), Some(day), code, amount.as_deref(), note]
        .map(|field| field.map(|text| text.as_bytes().to_vec()))
        .into()
}

fn write(dialect: Dialect, fields: &[Option<Vec<u8>>]) -> Vec<u8> {
    let mut line = Vec::new();
    for (place, field) in fields.iter().enumerate() {
        if place > 0 {
            line.push(dialect.delimiter());
        }
        let Some(value) = field else { continue };
        let is_special = |byte: &u8| [dialect.delimiter(), dialect.quote(), b'\n', b'\r'].contains(byte);
        if dialect.quoting() == Quoting::AsNeeded && !value.is_empty() && !value.iter().any(is_special) {
            line.extend_from_slice(value);
            continue;
        }
        line.push(dialect.quote());
        for &byte in value {
            if byte == dialect.quote() || byte == dialect.escape() {
                line.push(dialect.escape());
            }
            line.push(byte);
        }
        line.push(dialect.quote());
    }
    line
}

#[track_caller]
fn assert_same(found: &str, expected: &str, what: &str) {
    let pair = found.lines().chain([""]).zip(expected.lines().chain([""])).find(|(found, expected)| found != expected);
    let count = |text: &str| text.lines().count();
    assert!(found == expected, "{what}: {pair:?}, of {} and {} lines", count(found), count(expected));
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap())
}

/// The randomness of a test, and what to say where it fails.
fn random() -> (fastrand::Rng, String) {
    let seed = number("BULK_CAMPAIGN_SEED").unwrap_or_else(|| fastrand::u64(..));
    (fastrand::Rng::with_seed(seed), format!("BULK_CAMPAIGN_SEED={seed}"))
}

fn options(max_rejects: u64, chunk_size: u64) -> LoadOptions {
    let mut options = LoadOptions::default();
    (options.max_rejects, options.chunk_size) = (max_rejects, chunk_size);
    options
}

async fn load_sown(sessions: &mut [Session], sown: &Sown, options: &LoadOptions) -> Result<Loaded, Error> {
    load(sessions, &table("t"), &file("t.csv", &sown.csv), whole(&sown.csv), options).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn exactly_the_bad_records_are_left_out_at_every_rate() {
    let (mut random, seed) = random();
    let records = number("BULK_CAMPAIGN_RECORDS").unwrap_or(100_000);
    for rate in [0, 1, 1000] {
        let sown = Sown::at_rate(&mut random, records, rate);
        let bench = sown.bench().await;
        let mut all = bench.sessions(4).await;
        for count in 1..=4 {
            let what = format!("{seed}: {rate} in a million, {}, {count} sessions", sown.dialect);
            // Some eight chunks, and never quite the same.
            let chunk_size = sown.csv.len() as u64 / 8 + random.u64(..10_000);
            // Where nothing is bad, something might be.
            let mut options = options((sown.bad.len() as u64).max(1), chunk_size);
            options.format = if random.bool() { CopyFormat::Auto } else { CopyFormat::Text };
            let what = format!("{what}, {:?}", options.format);
            println!("{what}");
            restart(&mut all[0], &[table("t")]).await.unwrap();
            let loaded = load_sown(&mut all[..count], &sown, &options).await;
            let loaded = loaded.unwrap_or_else(|error| panic!("{what}: {}", chain(&error)));
            assert_eq!(loaded.sent, records - sown.bad.len() as u64, "{what}");
            sown.assert_loaded(&bench, &loaded, &what).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_limit_holds_to_the_record() {
    let (mut random, seed) = random();
    for count in 1..=4 {
        let sown = Sown::at_rate(&mut random, 20_000, 2000);
        let number = sown.bad.len() as u64;
        let bench = sown.bench().await;
        let mut sessions = bench.sessions(count).await;
        for limit in [number, number - 1, 1, random.u64(2..number - 1)] {
            let what = format!("{seed}: at most {limit} of {number}, {}, {count} sessions", sown.dialect);
            println!("{what}");
            restart(&mut sessions[0], &[table("t")]).await.unwrap();
            let options = |limit| options(limit, 60_000);
            let mut result = load_sown(&mut sessions, &sown, &options(limit)).await;
            if limit < number {
                let error = result.unwrap_err();
                let one_too_many = &sown.bad[limit as usize];
                one_too_many.assert_named(&error, limit, &what);
                // Of what is committed, neither more nor less is noted.
                let committed: u64 = bench.psql("SELECT coalesce(sum(records), 0) FROM bulk.chunk").parse().unwrap();
                assert!(committed < one_too_many.record, "{what}");
                let noted: Vec<_> = sown.bad.iter().take_while(|bad| bad.record <= committed).map(Bad::line).collect();
                let rejects =
                    "SELECT record, byte, \"column\", sqlstate, encode(raw, 'hex') FROM bulk.reject ORDER BY record";
                assert_same(&bench.psql(rejects), &noted.join("\n"), &what);
                let rows = bench.psql("SELECT count(*) FROM t");
                assert_eq!(rows, (committed - noted.len() as u64).to_string(), "{what}");
                result = load_sown(&mut sessions, &sown, &options(number)).await;
            }
            let loaded = result.unwrap_or_else(|error| panic!("{what}: {}", chain(&error)));
            sown.assert_loaded(&bench, &loaded, &what).await;
        }
    }
}

/// The same words tell of the one record that is bad where none may be.
#[tokio::test]
async fn without_leave_the_one_bad_record_is_named() {
    let (mut random, seed) = random();
    for fault in Fault::ALL {
        let sown = Sown::new(&mut random, 2000, &[fault]);
        let bench = sown.bench().await;
        let mut sessions = bench.sessions(1).await;
        for format in [CopyFormat::Auto, CopyFormat::Text] {
            let what = format!("{seed}: {fault:?}, {}, {format:?}", sown.dialect);
            restart(&mut sessions[0], &[table("t")]).await.unwrap();
            let mut options = options(0, 20_000);
            options.format = format;
            let error = load_sown(&mut sessions, &sown, &options).await.unwrap_err();
            let [bad] = &sown.bad[..] else { panic!("{what}: one is bad") };
            let place = match &error {
                Error::Record { source, .. } => (source.record, source.start),
                Error::Value { record, offset, .. } => (*record, *offset),
                Error::Copy { first, last, offset: Some(offset), .. } if first == last => (*first, *offset),
                error => panic!("{what}: {}", chain(error)),
            };
            // Rows that go as text beside binary stand behind the others of their chunk, so of two that have one key the
            // server may see the second one first.
            let is_twin = matches!(fault, Fault::Duplicate) && place.0 == bad.twin();
            assert!(is_twin || place == (bad.record, bad.byte), "{what}: {}", chain(&error));
            let committed: u64 = bench.psql("SELECT coalesce(sum(records), 0) FROM bulk.chunk").parse().unwrap();
            assert!(committed < bad.record, "{what}");
            assert_eq!(bench.psql("SELECT count(*) FROM t"), committed.to_string(), "{what}");

            options.max_rejects = 1;
            let loaded = load_sown(&mut sessions, &sown, &options).await;
            let loaded = loaded.unwrap_or_else(|error| panic!("{what}: {}", chain(&error)));
            sown.assert_loaded(&bench, &loaded, &what).await;
        }
    }
}
