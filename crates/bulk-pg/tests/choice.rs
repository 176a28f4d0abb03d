//! Loads of a part of a file: columns, records that meet conditions, the first so many.

mod support;

use std::io;
use std::slice::from_mut;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use bulk_pg::{
    CopyFormat, Error, Event, LoadOptions, Loaded, Plain, Session, count_rows, find_loaded, find_refreshed, is_staged,
    load, prepare_ledger, refresh, restart, unfinished, write_rejects,
};
use support::{Bench, Counted, Log, chain, file, load_t, table, whole};
use tokio_util::sync::CancellationToken;

const TABLE: &str = "CREATE TABLE t (id integer PRIMARY KEY, court text, note text)";

fn options(filter: &[&str], limit: Option<u64>) -> LoadOptions {
    let mut options = LoadOptions::default();
    options.filter = filter.iter().map(|text| text.parse().unwrap()).collect();
    options.limit = limit;
    options
}

/// Loads until so many chunks are committed, or to the end.
async fn interrupted(
    sessions: &mut [Session],
    csv: &[u8],
    options: &LoadOptions,
    commits: usize,
) -> Result<Loaded, Error> {
    let mut options = options.clone();
    options.stop = CancellationToken::new();
    let (stop, left) = (options.stop.clone(), AtomicUsize::new(commits));
    options.observer = Arc::new(move |event: &Event<'_>| {
        if matches!(event, Event::Committed { .. }) && left.fetch_sub(1, Ordering::SeqCst) == 1 {
            stop.cancel();
        }
    });
    load(sessions, &table("t"), &file("t.csv", csv), whole(csv), &options).await
}

/// Courts by turns, as they stand in the file.
const COURTS: [&str; 8] =
    ["scotus", "ca1", "\"scotus\"", "", "\"\"", "\"a|b\"", "\"say \"\"hi\"\"\"", "\" ca1\n, or not = 1\""];

/// Records `id,court,note` of which the notes are NULL twice in three.
fn courts(records: usize) -> Vec<u8> {
    let mut csv = b"id,court,note\n".to_vec();
    for id in 1..=records {
        let note = if id % 3 == 0 { format!("note {id}") } else { String::new() };
        csv.extend_from_slice(format!("{id},{},{note}\n", COURTS[id % COURTS.len()]).as_bytes());
    }
    csv
}

/// The server's own reading of a file, as the table `everything`.
fn read_by_the_server(bench: &Bench, csv: &[u8]) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("all.csv");
    std::fs::write(&path, csv).unwrap();
    bench.psql("CREATE TABLE everything (LIKE t)");
    bench.psql(&format!("\\copy everything FROM '{}' (FORMAT csv, HEADER)", path.display()));
}

/// What is in `t` and should not be there, and what is not and should.
fn differs(bench: &Bench, expected: &str) -> String {
    bench.psql(&format!(
        "(TABLE t EXCEPT ALL ({expected})) UNION ALL (({expected}) EXCEPT ALL TABLE t) ORDER BY 1 LIMIT 3"
    ))
}

/// That the ledger counts what the call told, and the table has it.
async fn assert_counted(bench: &Bench, loaded: &Loaded) {
    let Loaded { records, rejected, filtered, repaired, .. } = *loaded;
    let sums =
        "coalesce(sum(records), 0), coalesce(sum(rejected), 0), coalesce(sum(filtered), 0), coalesce(sum(repaired), 0)";
    let counts = format!("{records}|{rejected}|{filtered}|{repaired}");
    assert_eq!(bench.psql(&format!("SELECT {sums} FROM bulk.load WHERE finished_at IS NOT NULL")), counts);
    assert_eq!(bench.psql(&format!("SELECT {sums} FROM bulk.chunk")), counts);
    let count = count_rows(&bench.session().await, &table("t")).await.unwrap();
    assert_eq!((count.records, count.rejected, count.filtered), (records, rejected, filtered));
    assert_eq!(count.rows, records - rejected - filtered);
    assert!(count.matches());
    assert_eq!(count.loaded(), count.rows);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn conditions_are_true_of_what_sql_says_they_are_true_of() {
    let csv = courts(3000);
    let bench = Bench::new("where", TABLE);
    read_by_the_server(&bench, &csv);
    let mut three = bench.sessions(3).await;
    for (filter, sql) in [
        (&["court=scotus"][..], "court = 'scotus'"),
        (&["court = ca1|scotus|nothing"], "court IN ('ca1', 'scotus', 'nothing')"),
        (&["court!=scotus"], "court <> 'scotus'"),
        (&["court!=scotus|ca1"], "court NOT IN ('scotus', 'ca1')"),
        (&["court is null"], "court IS NULL"),
        (&["court IS NOT NULL"], "court IS NOT NULL"),
        (&["court="], "court = ''"),
        (&["court!="], "court <> ''"),
        (&["court='a|b'"], "court = 'a|b'"),
        (&["court=a|b"], "court IN ('a', 'b')"),
        (&["court=say \"hi\""], "court = 'say \"hi\"'"),
        (&["court='say \"hi\"'|say"], "court = 'say \"hi\"'"),
        (&["court=' ca1\n, or not = 1'"], "court = E' ca1\\n, or not = 1'"),
        (&["court=SCOTUS"], "false"),
        (&["court=scotus", "note is not null"], "court = 'scotus' AND note IS NOT NULL"),
        (
            &["note=note 33|note 36|note 39", "court!=ca1"],
            "note IN ('note 33', 'note 36', 'note 39') AND court <> 'ca1'",
        ),
        (&["id=17"], "id = 17"),
    ] {
        for (count, format) in [(1, CopyFormat::Auto), (3, CopyFormat::Text)] {
            restart(&mut three[0], &[table("t")]).await.unwrap();
            let mut options = options(filter, None);
            (options.chunk_size, options.format) = (7000, format);
            let identity = file("t.csv", &csv);
            let loaded = load(&mut three[..count], &table("t"), &identity, whole(&csv), &options).await.unwrap();
            assert_eq!(differs(&bench, &format!("SELECT * FROM everything WHERE {sql}")), "", "{filter:?}");
            assert_eq!((loaded.records, loaded.rejected, loaded.sent), (3000, 0, 3000 - loaded.filtered));
            assert_counted(&bench, &loaded).await;
            let again = load(&mut three[..1], &table("t"), &identity, || unreachable!(), &options).await.unwrap();
            assert_eq!((again.records, again.filtered, again.sent), (3000, loaded.filtered, 0));
            assert_eq!(find_loaded(&three[0], &table("t"), &identity, &options).await.unwrap(), Some(3000));
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_limit_takes_the_first_records_that_meet_the_conditions() {
    let csv = courts(3000);
    let bench = Bench::new("limit", TABLE);
    read_by_the_server(&bench, &csv);
    let mut three = bench.sessions(3).await;
    let identity = file("t.csv", &csv);
    // Behind these many records a chunk of ten ends; their lines differ in length.
    let borders = |options: &LoadOptions| {
        let mut records = bulk_pg::Records::new(&csv[..], bulk_pg::Dialect::CSV, {
            let mut record_options = bulk_pg::RecordOptions::default();
            record_options.chunk_size = options.chunk_size;
            record_options
        })
        .unwrap();
        let mut borders = Vec::new();
        while let Some(record) = records.next_record().unwrap() {
            if record.ends_chunk() {
                borders.push(record.number());
            }
        }
        borders
    };
    for (filter, sql) in
        [(&[][..], "true"), (&["court=scotus|ca1"], "court IN ('scotus', 'ca1')"), (&["id=2999"], "id = 2999")]
    {
        let mut chosen = options(filter, None);
        chosen.chunk_size = 300;
        let border = borders(&chosen)[5];
        let before =
            |record: u64| bench.psql(&format!("SELECT count(*) FROM everything WHERE id <= {record} AND {sql}"));
        let border: u64 = before(border).parse().unwrap();
        for limit in [0, 1, border.saturating_sub(1), border, border + 1, 1000, 2999, 3000, 10_000] {
            for count in [1, 3] {
                restart(&mut three[0], &[table("t")]).await.unwrap();
                chosen.limit = Some(limit);
                let loaded = load(&mut three[..count], &table("t"), &identity, whole(&csv), &chosen).await.unwrap();
                let what = format!("{filter:?}, the first {limit}, {count} sessions");
                let first = format!("SELECT * FROM everything WHERE {sql} ORDER BY id LIMIT {limit}");
                assert_eq!(differs(&bench, &first), "", "{what}");
                let rows: u64 = bench.psql("SELECT count(*) FROM t").parse().unwrap();
                // It ends with the record that fills it.
                let last =
                    if rows < limit { "3000".to_owned() } else { bench.psql("SELECT coalesce(max(id), 0) FROM t") };
                assert_eq!(loaded.records.to_string(), last, "{what}");
                assert_eq!((loaded.sent, loaded.filtered), (rows, loaded.records - rows), "{what}");
                assert_counted(&bench, &loaded).await;
                let again = load(&mut three, &table("t"), &identity, || unreachable!(), &chosen).await.unwrap();
                assert_eq!((again.records, again.sent), (loaded.records, 0));
            }
        }
    }
}

/// A reader of a file without an end.
struct Endless {
    at: usize,
}

impl io::Read for Endless {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        const LINE: &[u8] = b"1,ca1,\n";
        for byte in buffer.iter_mut() {
            *byte = LINE[self.at % LINE.len()];
            self.at += 1;
        }
        Ok(buffer.len())
    }
}

#[tokio::test]
async fn nothing_is_read_behind_the_limit() {
    let bench = Bench::new("endless", "CREATE TABLE t (id integer, court text, note text)");
    let mut session = bench.session().await;
    let read = Arc::new(AtomicU64::new(0));
    let counted = Counted { count: read.clone(), inner: io::Read::chain(&b"id,court,note\n"[..], Endless { at: 0 }) };
    let identity = bulk_pg::FileIdentity::new("t.csv", None, 60 << 30);
    let open = move || Ok(Box::new(Plain(counted)) as support::Input);
    let mut first = options(&["court=ca1"], Some(500_000));
    let loaded = load(from_mut(&mut session), &table("t"), &identity, open, &first).await.unwrap();
    assert_eq!((loaded.records, loaded.sent, loaded.bytes), (500_000, 500_000, 3_500_000));
    // A buffer more than the records.
    let read = read.load(Ordering::SeqCst);
    assert!((3_500_000..3_500_000 + (256 << 10) + 100).contains(&read), "{read}");
    assert_eq!(bench.psql("SELECT count(*) FROM t"), "500000");

    // An interruption between the last chunk and the end of the load.
    bench.psql("UPDATE bulk.load SET finished_at = NULL, records = NULL, filtered = 0");
    let open = || Ok(Box::new(Plain(io::Read::chain(&b"id,court,note\n"[..], Endless { at: 0 }))) as support::Input);
    let log = Log::default();
    log.observe(&mut first);
    let loaded = load(from_mut(&mut session), &table("t"), &identity, open, &first).await.unwrap();
    assert_eq!((loaded.records, loaded.sent, loaded.bytes), (500_000, 0, 0));
    assert_eq!(log.lines().len(), 2, "{:?}", log.lines());
    assert_counted(&bench, &loaded).await;
}

#[tokio::test]
async fn a_choice_of_nothing_is_loaded_and_in_nobodys_way() {
    let csv = courts(3000);
    let bench = Bench::new("nothing", TABLE);
    let mut session = bench.session().await;
    let mut none = options(&["court=scotsu"], None);
    none.chunk_size = 10_000;
    let identity = file("t.csv", &csv);
    // One that is interrupted has marks of chunks without a row.
    interrupted(from_mut(&mut session), &csv, &none, 2).await.unwrap_err();
    let marked = bench.psql("SELECT count(*), sum(records) = sum(filtered) FROM bulk.chunk");
    assert_eq!(marked, "2|t");
    assert_eq!(unfinished(&session, &table("t")).await.unwrap(), []);
    let before: u64 = bench.psql("SELECT sum(records) FROM bulk.chunk").parse().unwrap();
    let log = Log::default();
    log.observe(&mut none);
    let loaded = load_t(&mut session, &csv, &none).await.unwrap();
    assert_eq!((loaded.records, loaded.filtered, loaded.sent), (3000, 3000, 0));
    assert!(log.lines()[0].ends_with(&format!("behind {before}")), "{:?}", log.lines());
    assert_counted(&bench, &loaded).await;
    // It is loaded, though the table is empty.
    let again = load(from_mut(&mut session), &table("t"), &identity, || unreachable!(), &none).await.unwrap();
    assert_eq!((again.records, again.filtered, again.sent), (3000, 3000, 0));

    // Another file may come, and the same one by another choice, or another version of it.
    let other = file("other.csv", b"id,court,note\n7,x,\n");
    load(from_mut(&mut session), &table("t"), &other, whole(b"id,court,note\n7,x,\n"), &none).await.unwrap();
    assert_eq!(bench.psql("SELECT count(*), sum(filtered) FROM bulk.load"), "2|3001");
    let loaded = load_t(&mut session, &csv, &options(&["court=scotus"], None)).await.unwrap();
    assert_eq!((loaded.sent, loaded.filtered), (750, 2250));
    assert_eq!(
        bench.psql("SELECT string_agg(file_key || ' ' || choice, ', ' ORDER BY file_key) FROM bulk.load"),
        "other.csv where court=scotsu, t.csv where court=scotus"
    );
    assert_eq!(bench.psql("SELECT count(*) FROM t"), "750");
    // Now there are rows of it.
    let error =
        load(from_mut(&mut session), &table("t"), &other, || unreachable!(), &options(&[], None)).await.unwrap_err();
    assert!(chain(&error).starts_with("table public.t holds the rows of t.csv; "), "{}", chain(&error));
}

#[tokio::test]
async fn another_choice_over_rows_is_refused_as_another_version_is() {
    let csv = courts(3000);
    let bench = Bench::new("choices", TABLE);
    let mut session = bench.session().await;
    let identity = file("t.csv", &csv);
    let mut chosen = options(&["court!=ca1|scotus", "note is null"], Some(2000));
    chosen.columns = Some(vec!["id".to_owned(), "court".to_owned()]);
    chosen.chunk_size = 10_000;
    interrupted(from_mut(&mut session), &csv, &chosen, 2).await.unwrap_err();
    let partly = bench.psql("SELECT count(*) FROM t");
    let was = "columns court, id; where court!=ca1|scotus and note is null; limit 2000";
    for (other, now) in [
        (options(&[], None), "all of it"),
        (
            options(&["note is null", "court!=ca1|scotus"], Some(2000)),
            "where court!=ca1|scotus and note is null; limit 2000",
        ),
        (options(&[], Some(7)), "limit 7"),
    ] {
        let error = load(from_mut(&mut session), &table("t"), &identity, || unreachable!(), &other).await.unwrap_err();
        assert_eq!(
            chain(&error),
            format!(
                "table public.t holds a part of the rows of another choice of t.csv (it was: {was}; now: {now}); load it \
                 anew with --restart, which deletes all rows of the table"
            )
        );
        assert!(matches!(error, Error::Occupied { .. }));
        let error = find_loaded(&session, &table("t"), &identity, &other).await.unwrap_err();
        assert!(matches!(error, Error::Occupied { .. }));
    }
    assert_eq!(bench.psql("SELECT count(*) FROM t"), partly);

    // The same in other words goes on.
    let mut same = options(&["note IS NULL", "court != 'scotus'|ca1", "note is null"], Some(2000));
    same.columns = Some(["court", "id", "court"].map(str::to_owned).to_vec());
    let loaded = load_t(&mut session, &csv, &same).await.unwrap();
    read_by_the_server(&bench, &csv);
    let expected = "SELECT id, court, NULL FROM everything WHERE court NOT IN ('ca1', 'scotus') AND note IS NULL";
    assert_eq!(differs(&bench, expected), "");
    assert_counted(&bench, &loaded).await;
    let error = load_t(&mut session, &csv, &options(&[], None)).await.unwrap_err();
    assert!(chain(&error).starts_with("table public.t holds all rows of another choice of t.csv (it was: columns"));
    restart(&mut session, &[table("t")]).await.unwrap();
    let loaded = load_t(&mut session, &csv, &options(&[], None)).await.unwrap();
    assert_eq!((loaded.sent, loaded.filtered), (3000, 0));
    assert_eq!(bench.psql("SELECT choice FROM bulk.load"), "all of it");
}

#[tokio::test]
async fn another_fill_over_rows_is_refused_and_one_of_an_older_ledger_is_not() {
    let csv = courts(3000);
    let bench = Bench::new("fills", "CREATE TABLE t (id integer PRIMARY KEY, court text, note text, price integer)");
    let mut session = bench.session().await;
    let (identity, target) = (file("t.csv", &csv), table("t"));
    let filled = |price: &str| {
        let mut options = options(&[], None);
        options.fill.insert("price".to_owned(), price.to_owned());
        options.chunk_size = 10_000;
        options
    };
    interrupted(from_mut(&mut session), &csv, &filled("0"), 2).await.unwrap_err();
    let partly = bench.psql("SELECT count(*) FROM t");
    for (other, now) in [(filled("1"), "fill \"price\"='1'"), (options(&[], None), "all of it")] {
        let error = load(from_mut(&mut session), &target, &identity, || unreachable!(), &other).await.unwrap_err();
        assert_eq!(
            chain(&error),
            format!(
                "table public.t holds a part of the rows of another choice of t.csv (it was: fill \"price\"='0'; now: \
                 {now}); load it anew with --restart, which deletes all rows of the table"
            )
        );
    }
    assert_eq!(bench.psql("SELECT count(*) FROM t"), partly);
    let loaded = load_t(&mut session, &csv, &filled("0")).await.unwrap();
    assert_eq!(loaded.sent.to_string(), (3000 - partly.parse::<u64>().unwrap()).to_string());
    assert_eq!(bench.psql("SELECT count(*), sum(price) FROM t"), "3000|0");

    // So is one over rows for which none was given.
    restart(&mut session, &[table("t")]).await.unwrap();
    let mut unfilled = options(&[], None);
    unfilled.chunk_size = 10_000;
    interrupted(from_mut(&mut session), &csv, &unfilled, 2).await.unwrap_err();
    let error = load(from_mut(&mut session), &target, &identity, || unreachable!(), &filled("1")).await.unwrap_err();
    assert_eq!(
        chain(&error),
        "table public.t holds a part of the rows of another choice of t.csv (it was: all of it; now: fill \"price\"='1'); \
         load it anew with --restart, which deletes all rows of the table"
    );
    assert_eq!(load_t(&mut session, &csv, &unfilled).await.unwrap().records, 3000);
    assert_eq!(bench.psql("SELECT count(*), count(price) FROM t"), "3000|0");
    restart(&mut session, &[table("t")]).await.unwrap();
    load_t(&mut session, &csv, &filled("0")).await.unwrap();

    // A refresh takes it as another one, be it in the table or staged.
    assert_eq!(find_refreshed(&session, &target, &identity, &filled("0")).await.unwrap(), Some(3000));
    assert_eq!(find_refreshed(&session, &target, &identity, &filled("1")).await.unwrap(), None);
    for price in ["1", "2"] {
        let mut staging = filled(price);
        staging.stage = true;
        let loaded = load_t(&mut session, &csv, &staging).await.unwrap();
        assert_eq!(loaded.sent, 3000);
        assert_eq!(is_staged(&session, &target, &identity, &filled("1")).await.unwrap(), price == "1");
    }
    let refreshed = refresh(from_mut(&mut session), &target, &identity, whole(&csv), &filled("1")).await.unwrap();
    assert_eq!((refreshed.loaded.sent, refreshed.merged.changed), (3000, 3000));
    assert_eq!(bench.psql("SELECT count(*), sum(price) FROM t"), "3000|3000");

    // As it was before fills were told of.
    bench.psql("UPDATE bulk.load SET choice = NULL");
    for options in [filled("1"), options(&[], None)] {
        assert_eq!(find_loaded(&session, &target, &identity, &options).await.unwrap(), Some(3000));
        assert_eq!(find_refreshed(&session, &target, &identity, &options).await.unwrap(), Some(3000));
    }
    let mut chosen = filled("1");
    chosen.limit = Some(7);
    let error = find_loaded(&session, &target, &identity, &chosen).await.unwrap_err();
    assert!(chain(&error).contains("(it was: all of it; now: limit 7; fill \"price\"='1')"), "{}", chain(&error));
}

#[tokio::test]
async fn columns_that_are_not_chosen_are_left_to_their_defaults() {
    let csv = b"note,more,id,court\na,1,1,x\n,2,2,\nc,3,3,y\n";
    // A column may be looked at that is not loaded, nor in the table.
    for (columns, filter, fill, expected) in [
        ("id note", "more=1|3", None, Ok("1|none|a\n3|none|c")),
        ("note court id", "note is not null", None, Ok("1|x|a\n3|y|c")),
        ("id", "id=2|3", Some("f"), Ok("2|none|f\n3|none|f")),
        (
            "id",
            "id=1",
            None,
            Err(
                "it has no column among those to be loaded for note (text) of public.t, which may not be NULL and has no \
                 default; load it, too, or give every row a value with --fill t.note=VALUE",
            ),
        ),
        ("id Note", "id=1", None, Err("it has no column \"Note\"; its columns are note, more, id, court")),
        ("id note more", "id=1", None, Err("public.t has no column \"more\", which is to be loaded")),
        (
            "id note",
            "court_id=x",
            None,
            Err("records are to be chosen by the column \"court_id\", and its columns are note, more, id, court"),
        ),
    ] {
        let ddl = "CREATE TABLE t (id integer NOT NULL, court text DEFAULT 'none', note text NOT NULL)";
        let bench = Bench::new("columns", ddl);
        let mut session = bench.session().await;
        let mut chosen = options(&[filter], None);
        chosen.columns = Some(columns.split(' ').map(str::to_owned).collect());
        chosen.fill = fill.map(|value: &str| ("note".to_owned(), value.to_owned())).into_iter().collect();
        let loaded = load_t(&mut session, csv, &chosen).await.map_err(|error| chain(&error));
        let rows = loaded.map(|_| bench.psql("SELECT * FROM t ORDER BY id"));
        assert_eq!(rows, expected.map(str::to_owned).map_err(|error| format!("t.csv: {error}")));
    }
}

#[tokio::test]
async fn a_ledger_without_choices_gets_them() {
    let bench = Bench::new("older", TABLE);
    let mut session = bench.session().await;
    let csv = courts(100);
    load_t(&mut session, &csv, &LoadOptions::default()).await.unwrap();
    bench.psql(
        "ALTER TABLE bulk.load DROP COLUMN choice, DROP COLUMN filtered, DROP COLUMN repaired;
         ALTER TABLE bulk.chunk DROP COLUMN filtered, DROP COLUMN repaired",
    );
    prepare_ledger(&session).await.unwrap();
    let loaded = load_t(&mut session, &csv, &LoadOptions::default()).await.unwrap();
    assert_eq!((loaded.records, loaded.filtered, loaded.sent), (100, 0, 0));
    assert_counted(&bench, &loaded).await;
    let error = load_t(&mut session, &csv, &options(&["id=7"], None)).await.unwrap_err();
    assert!(chain(&error).contains("(it was: all of it; now: where id=7)"), "{}", chain(&error));
}

/// A file of random records, good and bad, and what a load should make of it.
struct Sown {
    csv: Vec<u8>,
    /// The rows of the table, as COPY writes them.
    rows: Vec<String>,
    /// Number and bytes of what is left out.
    bad: Vec<(u64, Vec<u8>)>,
    records: u64,
    filtered: u64,
}

impl Sown {
    /// Records of the courts `a` and `b` (and NULL), of which those of `a` are wanted, the first `limit`.
    fn new(random: &mut fastrand::Rng, limit: u64) -> Self {
        let mut sown = Self { csv: b"id,court,note\n".to_vec(), rows: vec![], bad: vec![], records: 0, filtered: 0 };
        let mut taken = 0;
        let mut ids: Vec<u64> = Vec::new();
        let share = [1, 10, 50, 90, 100][random.usize(..5)];
        for number in 1..=random.u64(1..1500) {
            let is_wanted = random.u64(..100) < share;
            let court = if is_wanted { "a" } else { ["b", "", "\"\"", "\"a\n\""][random.usize(..4)] };
            let quoted = if is_wanted && random.bool() { "\"a\"" } else { court };
            let (mut id, mut note) = (number.to_string().into_bytes(), format!("note {number}").into_bytes());
            let mut is_bad = true;
            let mut more = "";
            match random.u8(..60) {
                0 => id = b"x".to_vec(),
                1 => note = b"n\0".to_vec(),
                2 => note = b"\xff".to_vec(),
                // Which court it is of cannot be told.
                3 => more = ",",
                4 if !ids.is_empty() => id = ids[random.usize(..ids.len())].to_string().into_bytes(),
                _ => is_bad = false,
            }
            let start = sown.csv.len();
            sown.csv.extend_from_slice(&[&id[..], quoted.as_bytes(), &note].join(&b','));
            sown.csv.extend_from_slice(more.as_bytes());
            sown.csv.push(b'\n');
            if taken == limit {
                continue;
            }
            sown.records = number;
            if !is_wanted && more.is_empty() {
                sown.filtered += 1;
                continue;
            }
            taken += 1;
            if is_bad {
                sown.bad.push((number, sown.csv[start..].to_vec()));
            } else {
                ids.push(number);
                sown.rows.push(format!("{number}\ta\tnote {number}"));
            }
        }
        sown
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_ends_a_load_the_same_command_gives_the_same_rows_rejects_and_counts() {
    let bench = Bench::new("sown", TABLE);
    let mut three = bench.sessions(3).await;
    let seed = fastrand::u64(..);
    let mut random = fastrand::Rng::with_seed(seed);
    for round in 0..40 {
        let limit = [u64::MAX, 0, random.u64(1..100), random.u64(1..1500)][random.usize(..4)];
        let sown = Sown::new(&mut random, limit);
        let what = format!("seed {seed}, round {round}, limit {limit}");
        restart(&mut three[0], &[table("t")]).await.unwrap();
        let identity = file("t.csv", &sown.csv);
        let mut options = options(&["court=a"], (limit < u64::MAX).then_some(limit));
        options.max_rejects = u64::MAX;
        // Interrupted some times; or all of it was committed, but for the end of it.
        for _ in 0..random.usize(..4) {
            let count = random.usize(1..=3);
            options.chunk_size = random.u64(..3000);
            let _ = interrupted(&mut three[..count], &sown.csv, &options, random.usize(1..20)).await;
            if random.u8(..4) == 0 {
                bench.psql("UPDATE bulk.load SET finished_at = NULL, records = NULL, filtered = 0");
            }
        }
        let count = random.usize(1..=3);
        let loaded = load(&mut three[..count], &table("t"), &identity, whole(&sown.csv), &options).await;
        let loaded = loaded.unwrap_or_else(|error| panic!("{what}: {}", chain(&error)));
        assert_eq!(
            (loaded.records, loaded.rejected, loaded.filtered),
            (sown.records, sown.bad.len() as u64, sown.filtered),
            "{what}"
        );
        let rows = bench.psql("COPY (SELECT * FROM t ORDER BY id) TO STDOUT");
        assert!(rows == sown.rows.join("\n"), "{what}: {rows}");
        assert_counted(&bench, &loaded).await;
        let records = bench.psql("SELECT coalesce(string_agg(record::text, ' ' ORDER BY record), '') FROM bulk.reject");
        let expected: Vec<_> = sown.bad.iter().map(|(record, _)| record.to_string()).collect();
        assert_eq!(records, expected.join(" "), "{what}");
        let (mut raw, mut lines) = (Vec::new(), Vec::new());
        write_rejects(&three[0], &table("t"), &identity, &mut raw, &mut lines).await.unwrap();
        assert!(raw == sown.bad.iter().flat_map(|(_, raw)| raw.clone()).collect::<Vec<_>>(), "{what}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn gaps_are_filled_in_up_to_the_limit() {
    let csv = courts(3000);
    for count in [1, 3] {
        let bench = Bench::new("gaps", TABLE);
        read_by_the_server(&bench, &csv);
        let mut three = bench.sessions(3).await;
        let identity = file("t.csv", &csv);
        let mut chosen = options(&["court=scotus|ca1"], Some(800));
        chosen.chunk_size = 2000;
        load(&mut three, &table("t"), &identity, whole(&csv), &chosen).await.unwrap();
        // Chunks in the midst are lost, and the last one.
        let lost = "SELECT * FROM bulk.chunk WHERE chunk IN (0, 3, 4) OR chunk = (SELECT max(chunk) FROM bulk.chunk)";
        bench.psql(&format!(
            "DELETE FROM t USING ({lost}) c WHERE id > c.first_record AND id <= c.first_record + c.records;
             DELETE FROM bulk.chunk WHERE chunk IN (SELECT chunk FROM ({lost}) c);
             UPDATE bulk.load SET finished_at = NULL, records = NULL, filtered = 0"
        ));
        let left: u64 = bench.psql("SELECT count(*) FROM t").parse().unwrap();
        chosen.chunk_size = 700;
        let loaded = load(&mut three[..count], &table("t"), &identity, whole(&csv), &chosen).await.unwrap();
        assert_eq!(loaded.sent, 800 - left);
        let first = "SELECT * FROM everything WHERE court IN ('scotus', 'ca1') ORDER BY id LIMIT 800";
        assert_eq!(differs(&bench, first), "");
        assert_counted(&bench, &loaded).await;
    }
}

/// Each record that is wanted stands between others that are not, so that chunks end before their marks fill the memory.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_chunk_has_a_bounded_number_of_runs() {
    const RECORDS: usize = 700_000;
    let mut csv = b"id,court\n".to_vec();
    for _ in 0..RECORDS / 2 {
        csv.extend_from_slice(b"1,a\n2,b\n");
    }
    let bench = Bench::new("runs", "CREATE TABLE t (id integer, court text)");
    let mut two = bench.sessions(2).await;
    let mut chosen = options(&["court=b"], None);
    chosen.chunk_size = 1 << 30;
    let loaded = load(&mut two, &table("t"), &file("t.csv", &csv), whole(&csv), &chosen).await.unwrap();
    assert_eq!((loaded.sent, loaded.filtered), (350_000, 350_000));
    assert_eq!(bench.psql("SELECT count(*), min(id), max(id) FROM t"), "350000|2|2");
    let chunks = "SELECT string_agg(records || ' ' || filtered, ', ' ORDER BY chunk) FROM bulk.chunk";
    assert_eq!(bench.psql(chunks), "524287 262144, 175713 87856");
}
