//! Bad records that are left out: exactly those, each as it stands in the file, and once.

mod support;

use std::slice::from_mut;

use bulk_pg::{
    CopyFormat, Error, LoadOptions, Loaded, count_rows, find_loaded, find_rejects, load, restart, write_rejects,
};
use support::{Bench, chain, file, load_t, table, whole};

fn options(max_rejects: u64) -> LoadOptions {
    let mut options = LoadOptions::default();
    options.max_rejects = max_rejects;
    options
}

/// A file with bad records in it.
struct Sown {
    csv: Vec<u8>,
    records: u64,
    /// The ids of the good ones.
    ids: Vec<u64>,
    /// Of the bad ones: number, start, bytes.
    bad: Vec<(u64, usize, Vec<u8>)>,
    seed: u64,
}

const KINDS: usize = 15;

const TABLES: &str = "
    CREATE TABLE other (id integer PRIMARY KEY);
    INSERT INTO other SELECT * FROM generate_series(0, 99);
    CREATE TABLE t (
        id integer PRIMARY KEY,
        day date NOT NULL,
        code varchar(5),
        other integer REFERENCES other,
        late integer REFERENCES other DEFERRABLE INITIALLY DEFERRED,
        amount integer CHECK (amount >= 0),
        note text,
        extra jsonb,
        flag bigint UNIQUE DEFERRABLE INITIALLY DEFERRED
    )";

impl Sown {
    /// `records` records, of which every one is bad with a chance of `rate` in a million, and `least` at least.
    fn new(seed: u64, records: u64, rate: u64, least: u64) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut is_bad: Vec<bool> = (0..records).map(|_| random.u64(..1_000_000) < rate).collect();
        for _ in 0..least {
            is_bad[random.usize(1..records as usize)] = true;
        }
        // A duplicate needs one before it.
        is_bad[0] = false;
        let mut sown = Self {
            csv: b"id,day,code,other,late,amount,note,extra,flag\n".to_vec(),
            records,
            ids: vec![],
            bad: vec![],
            seed,
        };
        for (id, is_bad) in (1..).zip(is_bad) {
            let kind = if is_bad { random.usize(..KINDS) } else { KINDS };
            let day = match random.u8(..40) {
                // The server alone reads these.
                0 => "\"January 8, 1999\"",
                1 => "epoch",
                _ => "2020-02-29",
            };
            let note = ["", "plain", "\"two\nlines, \"\"quoted\"\"\"", "äöü €"][random.usize(..4)];
            let (other, late) = (random.u8(..100), random.u8(..100));
            let good = [
                id.to_string(),
                day.to_owned(),
                ["abc", "äöüßé", ""][random.usize(..3)].to_owned(),
                other.to_string(),
                late.to_string(),
                random.u16(..).to_string(),
                note.to_owned(),
                "\"{\"\"a\"\": 1}\"".to_owned(),
                id.to_string(),
            ];
            let mut fields: Vec<Vec<u8>> = good.iter().map(|field| field.clone().into_bytes()).collect();
            let earlier = || sown.ids[fastrand::Rng::with_seed(seed ^ id).usize(..sown.ids.len())].to_string();
            let mut set = |place: usize, value: &[u8]| fields[place] = value.to_vec();
            match kind {
                0 => set(0, b"12x"),
                1 => set(0, b"3000000000"),
                2 => set(1, b"2021-02-29"),
                3 => set(1, b"someday"),
                4 => set(1, b""),
                5 => set(2, "ääääää".as_bytes()),
                6 => set(6, b"x\0y"),
                7 => set(6, b"caf\xe9"),
                8 => set(0, earlier().as_bytes()),
                9 => set(8, earlier().as_bytes()),
                10 => set(5, b"-1"),
                11 => set(3, b"100"),
                12 => set(4, b"100"),
                13 => set(7, b"\"{\"\"a\"\":\n\n1\""),
                14 if random.bool() => drop(fields.pop()),
                14 => fields.push(b"more".to_vec()),
                _ => sown.ids.push(id),
            }
            let start = sown.csv.len();
            sown.csv.extend_from_slice(&fields.join(&b','));
            sown.csv.push(b'\n');
            if is_bad {
                sown.bad.push((id, start, sown.csv[start..].to_vec()));
            }
        }
        sown
    }

    /// That exactly the bad ones were left out, as they stand in the file.
    async fn assert_loaded(&self, bench: &Bench, loaded: &Loaded, what: &str) {
        let (seed, bad) = (self.seed, self.bad.len() as u64);
        assert_eq!((loaded.records, loaded.rejected), (self.records, bad), "{what}, seed {seed}");
        assert_eq!(
            bench.psql("SELECT count(*), coalesce(sum(id), 0), coalesce(sum(flag), 0) FROM t"),
            format!("{}|{}|{}", self.ids.len(), self.ids.iter().sum::<u64>(), self.ids.iter().sum::<u64>()),
            "{what}, seed {seed}"
        );
        let rejects = bench.psql("SELECT record, byte, encode(raw, 'hex') FROM bulk.reject ORDER BY record");
        let hex = |raw: &[u8]| raw.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        let expected: Vec<_> =
            self.bad.iter().map(|(record, byte, raw)| format!("{record}|{byte}|{}", hex(raw))).collect();
        assert!(rejects == expected.join("\n"), "{what}, seed {seed}: {}", difference(&rejects, &expected.join("\n")));
        let counts =
            "SELECT records, rejected, (SELECT sum(rejected) FROM bulk.chunk), (SELECT sum(records) FROM bulk.chunk)
                      FROM bulk.load WHERE finished_at IS NOT NULL";
        assert_eq!(bench.psql(counts), format!("{0}|{bad}|{bad}|{0}", self.records), "{what}, seed {seed}");

        let session = bench.session().await;
        let count = count_rows(&session, &table("t")).await.unwrap();
        assert_eq!((count.records, count.rejected, count.rows), (self.records, bad, self.records - bad));
        assert!(count.matches());
        let (mut raw, mut lines) = (Vec::new(), Vec::new());
        let identity = file("t.csv", &self.csv);
        let written = write_rejects(&session, &table("t"), &identity, &mut raw, &mut lines).await.unwrap();
        assert_eq!(written, bad);
        assert!(raw == self.bad.iter().flat_map(|(_, _, raw)| raw.clone()).collect::<Vec<_>>(), "{what}, seed {seed}");
        let found = find_rejects(&session, &table("t"), &identity, 7).await.unwrap();
        assert_eq!((found.count, found.first.len() as u64), (bad, bad.min(7)));
        for (found, (record, byte, _)) in found.first.iter().zip(&self.bad) {
            assert_eq!((found.record, found.byte), (*record, *byte as u64));
        }
        let lines: Vec<serde_json::Value> =
            lines.split_inclusive(|byte| *byte == b'\n').map(|line| serde_json::from_slice(line).unwrap()).collect();
        assert_eq!(lines.len() as u64, bad);
        for (line, (record, byte, _)) in lines.iter().zip(&self.bad) {
            assert_eq!(
                (&line["file"], &line["record"], &line["byte"]),
                (&"t.csv".into(), &(*record).into(), &(*byte).into())
            );
            assert!(!line["message"].as_str().unwrap().is_empty());
            assert_eq!(line["sqlstate"].as_str().unwrap().len(), 5);
        }
        for (found, line) in found.first.iter().zip(&lines) {
            assert_eq!(
                (&line["column"], &line["message"]),
                (&found.column.clone().into(), &found.message.clone().into())
            );
        }
    }
}

/// The first lines that differ.
fn difference(found: &str, expected: &str) -> String {
    let pair = found.lines().chain([""]).zip(expected.lines().chain([""])).find(|(found, expected)| found != expected);
    format!("{pair:?}, of {} and {} lines", found.lines().count(), expected.lines().count())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn exactly_the_bad_records_are_left_out() {
    for (rows, rate, least) in [(4000, 0, 0), (4000, 1, 1), (12_000, 1000, 1), (3000, 100_000, 30)] {
        for count in [1, 3] {
            for format in [CopyFormat::Auto, CopyFormat::Text] {
                let sown = Sown::new(fastrand::u64(..), rows, rate, least);
                let bench = Bench::new("sown", TABLES);
                let mut sessions = bench.sessions(count).await;
                let mut options = options(u64::MAX);
                (options.chunk_size, options.format) = (20_000, format);
                let (target, identity) = (table("t"), file("t.csv", &sown.csv));
                let loaded = load(&mut sessions, &target, &identity, whole(&sown.csv), &options).await;
                let what = format!("{rate} in a million, {count} sessions, {format:?}");
                let loaded = loaded.unwrap_or_else(|error| panic!("{what}, seed {}: {}", sown.seed, chain(&error)));
                assert_eq!(loaded.sent, sown.ids.len() as u64);
                sown.assert_loaded(&bench, &loaded, &what).await;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_limit_holds_to_the_record_over_sessions_and_runs() {
    for count in [1, 3] {
        let sown = Sown::new(fastrand::u64(..), 3000, 3000, 3);
        let (seed, bad) = (sown.seed, sown.bad.len());
        let bench = Bench::new("limit", TABLES);
        let mut sessions = bench.sessions(count).await;
        let (target, identity) = (table("t"), file("t.csv", &sown.csv));
        let mut limits = vec![1, bad / 2, bad - 1];
        limits.dedup();
        // Without rejects, several sessions do not keep the order.
        limits.splice(..0, (count == 1).then_some(0));
        for limit in limits {
            let mut options = options(limit as u64);
            options.chunk_size = 10_000;
            let error = load(&mut sessions, &target, &identity, whole(&sown.csv), &options).await.unwrap_err();
            let (record, byte, _) = sown.bad[limit];
            if limit > 0 {
                let Error::Rejects { limit: l, record: r, offset, .. } = &error else { panic!("{}", chain(&error)) };
                assert_eq!((*l, *r, *offset), (limit as u64, record, byte as u64), "seed {seed}");
            }
            // Whole chunks before it, and nothing of its own.
            let committed: u64 = bench.psql("SELECT coalesce(sum(records), 0) FROM bulk.chunk").parse().unwrap();
            assert!(committed < record, "seed {seed}");
            let rejected = sown.bad.iter().filter(|(record, _, _)| *record <= committed).count();
            assert!(rejected <= limit);
            assert_eq!(
                bench.psql(
                    "SELECT (SELECT count(*) FROM t), (SELECT count(*) FROM bulk.reject), rejected FROM bulk.load"
                ),
                format!("{}|{rejected}|{rejected}", committed - rejected as u64),
                "seed {seed}"
            );
        }
        // Fewer than there are by now.
        let rejected: usize = bench.psql("SELECT rejected FROM bulk.load").parse().unwrap();
        if rejected > 1 {
            let error = load(&mut sessions, &target, &identity, || unreachable!(), &options(1)).await.unwrap_err();
            assert!(matches!(error, Error::Rejects { record, .. } if record == sown.bad[1].0), "{}", chain(&error));
        }
        let loaded = load(&mut sessions, &target, &identity, whole(&sown.csv), &options(bad as u64)).await.unwrap();
        sown.assert_loaded(&bench, &loaded, "at the limit").await;
        let loaded = load(&mut sessions, &target, &identity, || unreachable!(), &options(0)).await.unwrap();
        assert_eq!((loaded.records, loaded.rejected, loaded.sent), (3000, bad as u64, 0));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_load_that_is_dropped_and_called_again_leaves_out_the_same_once() {
    for count in [1, 3] {
        let sown = Sown::new(fastrand::u64(..), 3000, 5000, 5);
        let seed = sown.seed;
        let bench = Bench::new("dropped", TABLES);
        let held = sown.ids[sown.ids.len() / 2];
        bench.psql(&format!(
            "CREATE FUNCTION hold() RETURNS trigger LANGUAGE plpgsql AS
                 $$ BEGIN PERFORM pg_advisory_xact_lock_shared(7); RETURN NEW; END $$;
             CREATE TRIGGER hold BEFORE INSERT ON t FOR EACH ROW WHEN (NEW.id = {held}) EXECUTE FUNCTION hold()"
        ));
        let holder = bench.session().await;
        holder.client().batch_execute("SELECT pg_advisory_lock(7)").await.unwrap();
        let mut sessions = bench.sessions(count).await;
        let (target, identity) = (table("t"), file("t.csv", &sown.csv));
        let mut options = options(u64::MAX);
        options.chunk_size = 10_000;
        {
            let load = load(&mut sessions, &target, &identity, whole(&sown.csv), &options);
            tokio::select! {
                ended = load => panic!("{ended:?}, seed {seed}"),
                () = bench.waits("wait_event = 'advisory'") => {}
            }
        }
        holder.client().batch_execute("SELECT pg_advisory_unlock(7)").await.unwrap();
        for session in &sessions {
            session.client().batch_execute("SELECT 1").await.unwrap();
        }
        let loaded = load(&mut sessions, &target, &identity, whole(&sown.csv), &options).await.unwrap();
        assert!(loaded.sent < sown.ids.len() as u64, "seed {seed}");
        sown.assert_loaded(&bench, &loaded, "again").await;
        restart(&mut sessions[0], &[target]).await.unwrap();
        assert_eq!(bench.psql("SELECT count(*) FROM bulk.reject"), "0");
    }
}

/// What is left out of a load of `csv` into `ddl`'s `t`, and the column, code and message of each.
async fn left_out(ddl: &str, csv: &str, options: &LoadOptions) -> Result<(String, String), String> {
    let bench = Bench::new("refused", ddl);
    let mut session = bench.session().await;
    load_t(&mut session, csv.as_bytes(), options).await.map_err(|error| chain(&error))?;
    let rows = bench.psql("SELECT string_agg(id::text, ' ' ORDER BY id) FROM t");
    Ok((rows, bench.psql("SELECT record, \"column\", sqlstate, message FROM bulk.reject ORDER BY record")))
}

#[tokio::test]
async fn each_reject_says_what_is_wrong() {
    for (ddl, csv, rows, rejects) in [
        (
            "CREATE TABLE t (id integer, day date)",
            "id,day\n1,2000-01-01\nx,2000-01-01\n3,2000-01-01,\n4,2000-01-\0\n5,never\n6,2000-13-01\n",
            "1",
            "2|id|22P02|invalid input syntax for type integer: \"x\"\n\
             3||22P04|3 fields where the header has 2\n\
             4|day|22021|a NUL byte, which text in PostgreSQL cannot hold\n\
             5|day|22007|invalid input syntax for type date: \"never\"\n\
             6|day|22008|date/time field value out of range: \"2000-13-01\"",
        ),
        (
            "CREATE TABLE t (id integer PRIMARY KEY, day date NOT NULL, CHECK (day > '1990-01-01'))",
            "id,day\n1,2000-01-01\n2,\n3,1980-01-01\n1,2000-01-02\n5,\"January 8, 1999\"\n6,\"January 8, 1989\"\n",
            "1 5",
            "2|day|23502|null value in column \"day\" of relation \"t\" violates not-null constraint (Failing row contains \
             (2, null).)\n\
             3||23514|new row for relation \"t\" violates check constraint \"t_day_check\" (Failing row contains (3, \
             1980-01-01).)\n\
             4||23505|duplicate key value violates unique constraint \"t_pkey\" (Key (id)=(1) already exists.)\n\
             6||23514|new row for relation \"t\" violates check constraint \"t_day_check\" (Failing row contains (6, \
             1989-01-08).)",
        ),
        (
            "CREATE TABLE t (id integer, day jsonb)",
            "id,day\n1,{}\n2,\"{\n\n\"\n3,[]\n4,tru\n",
            "1 3",
            "2|day|22P02|invalid input syntax for type json (The input string ended unexpectedly.)\n\
             4|day|22P02|invalid input syntax for type json (Token \"tru\" is invalid.)",
        ),
        (
            "CREATE TABLE t (id integer, day date) PARTITION BY RANGE (id);
             CREATE TABLE low PARTITION OF t FOR VALUES FROM (0) TO (10)",
            "id,day\n1,2000-01-01\n10,2000-01-01\n2,2000-01-01\n",
            "1 2",
            "2||23514|no partition of relation \"t\" found for row (Partition key of the failing row contains (id) = (10).)",
        ),
        (
            "CREATE TABLE t (id integer, day text);
             CREATE FUNCTION no() RETURNS trigger LANGUAGE plpgsql AS
                 $$ BEGIN IF NEW.id = 2 THEN RAISE 'not that'; END IF;
                          IF NEW.id = 3 THEN RAISE 'nor that' USING ERRCODE = 'U0001'; END IF; RETURN NEW; END $$;
             CREATE TRIGGER no AFTER INSERT ON t FOR EACH ROW EXECUTE FUNCTION no()",
            "id,day\n1,a\n2,b\n3,c\n4,d\n",
            "1 4",
            "2||P0001|not that\n3||U0001|nor that",
        ),
        (
            "CREATE TABLE t (id integer, day tsrange, EXCLUDE USING gist (day WITH &&))",
            "id,day\n1,\"[2000-01-01,2000-01-03)\"\n2,\"[2000-01-02,2000-01-04)\"\n3,\"[2000-01-03,2000-01-04)\"\n",
            "1 3",
            "2||23P01|conflicting key value violates exclusion constraint \"t_day_excl\" (Key (day)=([\"2000-01-02 \
             00:00:00\",\"2000-01-04 00:00:00\")) conflicts with existing key (day)=([\"2000-01-01 \
             00:00:00\",\"2000-01-03 00:00:00\")).)",
        ),
    ] {
        assert_eq!(left_out(ddl, csv, &options(10)).await, Ok((rows.to_owned(), rejects.to_owned())));
    }
    // What is as wrong with any other row.
    let ddl = "CREATE TABLE t (id integer);
               CREATE FUNCTION bad() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN SELECT * FROM nowhere; END $$;
               CREATE TRIGGER bad BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION bad()";
    assert_eq!(
        left_out(ddl, "id\n1\n", &options(10)).await.unwrap_err(),
        "t.csv: the server refuses record 1, byte 3 for public.t: relation \"nowhere\" does not exist [SQLSTATE 42P01]"
    );
    assert_eq!(
        left_out("CREATE TABLE t (id integer)", "id\n1\nx\n2\ny\n", &options(1)).await.unwrap_err(),
        "t.csv: more than 1 record is bad; the first one too many: record 4, byte 9, column id: invalid input syntax \
         for type integer: \"y\" [SQLSTATE 22P02]"
    );
}

#[tokio::test]
async fn a_row_may_refer_to_one_behind_it() {
    let ddl = |deferred| format!("CREATE TABLE t (id integer PRIMARY KEY, up integer REFERENCES t {deferred})");
    let csv = "id,up\n1,9\n2,3\n3,4\n4,\n5,1\n6,10\nx,\n11,11\n";
    for deferred in ["", "DEFERRABLE INITIALLY DEFERRED"] {
        let (rows, rejects) = left_out(&ddl(deferred), csv, &options(10)).await.unwrap();
        assert_eq!(rows, "2 3 4 11");
        let records: Vec<_> = rejects.lines().map(|line| line.split('|').next().unwrap()).collect();
        assert_eq!(records, ["1", "5", "6", "7"]);
    }
    // Two that refer to each other.
    let csv = "id,up\n2,3\n3,4\n4,\n7,8\n8,7\nx,\n4,\n";
    let (rows, _) = left_out(&ddl(""), csv, &options(10)).await.unwrap();
    assert_eq!(rows, "2 3 4 7 8");
}

/// The second of two equal keys is the one that stands later, even if its chunk comes first to the server.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_chunk_that_holds_what_one_before_it_needs_gives_it_back() {
    let bench = Bench::new("yield", "CREATE TABLE t (id integer PRIMARY KEY, text text)");
    bench.psql(
        "CREATE FUNCTION hold() RETURNS trigger LANGUAGE plpgsql AS
             $$ BEGIN PERFORM pg_advisory_xact_lock_shared(7); RETURN NEW; END $$;
         CREATE TRIGGER hold BEFORE INSERT ON t FOR EACH ROW WHEN (NEW.text = 'hold') EXECUTE FUNCTION hold()",
    );
    let holder = bench.session().await;
    holder.client().batch_execute("SELECT pg_advisory_lock(7)").await.unwrap();
    let mut three = bench.sessions(3).await;
    // Three chunks of a record of 7 to 9 bytes and another one.
    let csv = b"id,text\n1,hold\n7,one\n2,no\n7,two\n3,x\n7,three\n";
    let mut options = options(10);
    options.chunk_size = 12;
    let (target, identity) = (table("t"), file("t.csv", csv));
    let load = load(&mut three, &target, &identity, whole(csv), &options);
    let release = async {
        let others = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()
                      AND state LIKE 'idle in transaction%'";
        while bench.psql(others) == "0" {
            tokio::task::yield_now().await;
        }
        holder.client().batch_execute("SELECT pg_advisory_unlock(7)").await.unwrap();
    };
    let (loaded, ()) = tokio::join!(load, release);
    let loaded = loaded.unwrap();
    assert_eq!((loaded.records, loaded.rejected, loaded.sent), (6, 2, 4));
    assert_eq!(bench.psql("SELECT * FROM t ORDER BY id"), "1|hold\n2|no\n3|x\n7|one");
    assert_eq!(bench.psql("SELECT record FROM bulk.reject ORDER BY 1"), "4\n6");
}

#[tokio::test]
async fn a_file_of_nothing_but_rejects_is_loaded_in_small_chunks() {
    let mut csv = b"id\n".to_vec();
    for id in 0..10_000 {
        csv.extend_from_slice(format!("x{id}\n").as_bytes());
    }
    let bench = Bench::new("nothing", "CREATE TABLE t (id integer)");
    let mut session = bench.session().await;
    let loaded = load_t(&mut session, &csv, &options(10_000)).await.unwrap();
    assert_eq!((loaded.records, loaded.rejected, loaded.sent), (10_000, 10_000, 0));
    let chunks =
        "SELECT string_agg(chunk || ' ' || records || ' ' || rejected, ',' ORDER BY first_byte) FROM bulk.chunk";
    assert_eq!(bench.psql(chunks), "0 4096 4096,1 4096 4096,2 1808 1808");
    // It is loaded, though the table is empty.
    let identity = file("t.csv", &csv);
    assert_eq!(find_loaded(&session, &table("t"), &identity, &options(0)).await.unwrap(), Some(10_000));
    let again = load(from_mut(&mut session), &table("t"), &identity, || unreachable!(), &options(0)).await.unwrap();
    assert_eq!((again.records, again.rejected, again.sent), (10_000, 10_000, 0));
}

#[tokio::test]
async fn long_rejects_come_back_whole() {
    let long = "y".repeat(3 << 20);
    let csv = format!("id,text\nx,{long}\n1,{long}\n1,\"{long}\"\n2,z\nx,\"\n{long}\"");
    let bench = Bench::new("long", "CREATE TABLE t (id integer PRIMARY KEY, text text)");
    let mut session = bench.session().await;
    let loaded = load_t(&mut session, csv.as_bytes(), &options(3)).await.unwrap();
    assert_eq!((loaded.rejected, loaded.sent), (3, 2));
    let (mut raw, mut lines) = (Vec::new(), Vec::new());
    let identity = file("t.csv", csv.as_bytes());
    assert_eq!(write_rejects(&session, &table("t"), &identity, &mut raw, &mut lines).await.unwrap(), 3);
    assert!(raw == format!("x,{long}\n1,\"{long}\"\nx,\"\n{long}\"").into_bytes());
    assert_eq!(
        String::from_utf8(lines).unwrap(),
        "{\"file\":\"t.csv\",\"record\":1,\"byte\":8,\"column\":\"id\",\"sqlstate\":\"22P02\",\"message\":\"invalid input \
         syntax for type integer: \\\"x\\\"\"}\n\
         {\"file\":\"t.csv\",\"record\":3,\"byte\":6291470,\"column\":null,\"sqlstate\":\"23505\",\"message\":\"duplicate \
         key value violates unique constraint \\\"t_pkey\\\" (Key (id)=(1) already exists.)\"}\n\
         {\"file\":\"t.csv\",\"record\":5,\"byte\":9437207,\"column\":\"id\",\"sqlstate\":\"22P02\",\"message\":\"invalid \
         input syntax for type integer: \\\"x\\\"\"}\n"
    );
    struct Full;
    impl std::io::Write for Full {
        fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
            Err(std::io::Error::other("the disk is full"))
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let error = write_rejects(&session, &table("t"), &identity, &mut Full, &mut Vec::new()).await.unwrap_err();
    assert_eq!(chain(&error), "cannot write the rejects of t.csv: the disk is full");
    session.client().batch_execute("SELECT 1").await.unwrap();
}

#[tokio::test]
async fn a_ledger_without_rejects_gets_them() {
    let bench = Bench::new("older", "CREATE TABLE t (id integer)");
    drop(bench.session().await);
    bench.psql(
        "DROP TABLE bulk.reject; ALTER TABLE bulk.load DROP COLUMN rejected, DROP COLUMN attempt;
         ALTER TABLE bulk.chunk DROP COLUMN rejected",
    );
    let mut session = bench.session().await;
    let loaded = load_t(&mut session, b"id\n1\nx\n", &options(1)).await.unwrap();
    assert_eq!((loaded.rejected, loaded.sent), (1, 1));
}
