//! In which format rows go, and that it makes no difference to what arrives.

mod support;

use bulk_pg::{CopyFormat, Error, LoadOptions};
use support::{Bench, chain, load_t};

/// A database with this table, which notes the COPYs into it.
fn bench(columns: &str) -> Bench {
    let ddl = format!(
        "CREATE TABLE t ({columns});
         CREATE TABLE seen (id serial, query text);
         CREATE FUNCTION see() RETURNS trigger LANGUAGE plpgsql AS
             $$ BEGIN INSERT INTO seen (query) VALUES (current_query()); RETURN NULL; END $$;
         CREATE TRIGGER see BEFORE INSERT ON t FOR EACH STATEMENT EXECUTE FUNCTION see()"
    );
    Bench::new("format", &ddl)
}

/// The formats of the COPYs in order, each by a letter.
fn formats(bench: &Bench) -> String {
    bench.psql(
        "SELECT string_agg(CASE WHEN query LIKE 'COPY %(FORMAT binary)' THEN 'b'
                                WHEN query LIKE 'COPY % FROM STDIN' THEN 't' ELSE query END, '' ORDER BY id) FROM seen",
    )
}

/// A date that only the server reads.
const UNCLEAR: &str = "\"January 8, 1999\"";

fn csv(days: &[&str]) -> Vec<u8> {
    let mut csv = "id,day\n".to_owned();
    for (place, day) in days.iter().enumerate() {
        csv += &format!("{},{day}\n", place + 1);
    }
    csv.into_bytes()
}

#[tokio::test]
async fn rows_go_in_binary_and_what_only_the_server_reads_beside_them() {
    for (columns, days, expected) in [
        ("id integer, day date", &["2000-01-02", "", "1999-01-08"][..], "b"),
        ("id integer, day date", &["2000-01-02", UNCLEAR, "2000-01-03"], "bt"),
        ("id integer, day date", &[UNCLEAR], "t"),
        ("id integer, day date, unused inet", &["2000-01-02"], "b"),
        ("id integer, day text, \"unused (b)\" money", &["x"], "b"),
        ("id oid, day date", &["2000-01-02", UNCLEAR], "t"),
    ] {
        let bench = bench(columns);
        let mut session = bench.session().await;
        let loaded = load_t(&mut session, &csv(days), &LoadOptions::default()).await.unwrap();
        assert_eq!((loaded.records, loaded.sent, loaded.rejected), (days.len() as u64, days.len() as u64, 0));
        assert_eq!(formats(&bench), expected, "{columns} {days:?}");
        let expected: Vec<String> = days
            .iter()
            .enumerate()
            .map(|(place, day)| format!("{}|{}", place + 1, if *day == UNCLEAR { "1999-01-08" } else { day }))
            .collect();
        assert_eq!(bench.psql("SELECT id, day FROM t ORDER BY id"), expected.join("\n"));
    }
    // Asked for, and a constant that only the server reads.
    let bench = bench("id integer, day date, at date");
    let mut session = bench.session().await;
    let mut options = LoadOptions::default();
    options.format = CopyFormat::Text;
    load_t(&mut session, &csv(&["2000-01-02"]), &options).await.unwrap();
    bench.psql("TRUNCATE t");
    let mut options = LoadOptions::default();
    options.fill.insert("at".to_owned(), "8 January 1999".to_owned());
    load_t(&mut session, &csv(&["2000-01-02"]), &options).await.unwrap();
    bench.psql("TRUNCATE t");
    options.fill.insert("at".to_owned(), "1999-01-08".to_owned());
    load_t(&mut session, &csv(&["2000-01-02"]), &options).await.unwrap();
    assert_eq!((formats(&bench), bench.psql("SELECT * FROM t")), ("ttb".into(), "1|2000-01-02|1999-01-08".into()));
}

#[tokio::test]
async fn where_too_many_are_beside_the_rest_goes_as_text() {
    for (unclear, expected) in [(5, "btbtb"), (6, "bttt")] {
        let mut days = vec!["2000-01-02"; 200];
        days[..unclear].fill(UNCLEAR);
        // In the next chunk.
        days[110] = UNCLEAR;
        let csv = csv(&days);
        let bench = bench("id integer, day date");
        let mut session = bench.session().await;
        let mut options = LoadOptions::default();
        // The first hundred records.
        options.chunk_size = (self::csv(&days[..100]).len() - "id,day\n".len()) as u64;
        load_t(&mut session, &csv, &options).await.unwrap();
        assert_eq!(bench.psql("SELECT records FROM bulk.chunk WHERE chunk = 0"), "100");
        assert_eq!(formats(&bench), expected, "{unclear}");
        assert_eq!(
            bench.psql("SELECT count(*), count(DISTINCT id), count(*) FILTER (WHERE day = '1999-01-08') FROM t"),
            format!("200|200|{}", unclear + 1)
        );
    }
}

#[tokio::test]
async fn much_that_only_the_server_reads_does_not_wait_for_the_end() {
    let text = "x".repeat(1000);
    let mut csv = "id,day,text\n".to_owned();
    for id in 0..12_000 {
        let day = if id % 4 == 0 { UNCLEAR } else { "2000-01-02" };
        csv += &format!("{id},{day},{text}\n");
    }
    let bench = bench("id integer, day date, text text");
    let mut session = bench.session().await;
    load_t(&mut session, csv.as_bytes(), &LoadOptions::default()).await.unwrap();
    // A megabyte of it is sent at a time.
    assert_eq!(formats(&bench), "btbtbt");
    assert_eq!(
        bench.psql(
            "SELECT count(*), count(DISTINCT id), bool_and(length(text) = 1000),
                    bool_and((day = '1999-01-08') = (id % 4 = 0)) FROM t"
        ),
        "12000|12000|t|t"
    );
}

#[tokio::test]
async fn a_refused_row_is_found_in_the_file_whichever_way_it_went() {
    let check = "id integer, day date CHECK (day NOT IN ('2011-11-11', '1999-01-09'))";
    let bad = "\"January 9, 1999\"";
    for (days, record, byte) in [
        (&["2000-01-01", UNCLEAR, "2000-01-03", "2011-11-11", UNCLEAR][..], 4, 7 + 13 + 20 + 13),
        (&["2000-01-01", UNCLEAR, "2000-01-03", bad, UNCLEAR], 4, 7 + 13 + 20 + 13),
        (&[UNCLEAR, UNCLEAR, bad], 3, 7 + 20 + 20),
    ] {
        let bench = bench(check);
        let mut session = bench.session().await;
        let error = load_t(&mut session, &csv(days), &LoadOptions::default()).await.unwrap_err();
        let expected = format!("t.csv: the server refuses record {record}, byte {byte} for public.t: ");
        assert!(chain(&error).starts_with(&expected), "{}", chain(&error));
        assert_eq!(bench.psql("SELECT count(*) FROM t"), "0");
    }
}

#[tokio::test]
async fn a_line_of_a_json_text_is_not_taken_for_one_of_the_file() {
    for (format, columns) in [
        (CopyFormat::Auto, "id integer, day jsonb"),
        (CopyFormat::Auto, "id integer, day json"),
        (CopyFormat::Text, "id integer, day jsonb"),
    ] {
        let bench = bench(columns);
        let mut session = bench.session().await;
        let mut options = LoadOptions::default();
        options.format = format;
        let csv = csv(&["{}", "[1]", "\"{\"\"a\"\":\n\n x}\"", "2"]);
        let error = load_t(&mut session, &csv, &options).await.unwrap_err();
        assert_eq!(
            chain(&error),
            "t.csv: the server refuses record 3, byte 18, column day for public.t: invalid input syntax for type json \
             (Token \"x\" is invalid.) [SQLSTATE 22P02]"
        );
    }
}

#[tokio::test]
async fn rows_that_the_server_does_not_take_are_missed_in_either_format() {
    for day in ["2000-01-02", UNCLEAR] {
        let bench = bench("id integer, day date");
        bench.psql(
            "CREATE FUNCTION skip() RETURNS trigger LANGUAGE plpgsql AS
                 $$ BEGIN RETURN CASE WHEN NEW.id = 2 THEN NULL ELSE NEW END; END $$;
             CREATE TRIGGER skip BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION skip()",
        );
        let mut session = bench.session().await;
        let days = ["2000-01-01", day, "2000-01-03", day];
        let error = load_t(&mut session, &csv(&days), &LoadOptions::default()).await.unwrap_err();
        let (sent, taken) = if day == UNCLEAR { (2, 1) } else { (4, 3) };
        assert!(
            matches!(error, Error::RowCount { sent: s, taken: t, .. } if (s, t) == (sent, taken)),
            "{}",
            chain(&error)
        );
        assert_eq!(bench.psql("SELECT count(*) FROM t"), "0");
    }
}

#[tokio::test]
async fn a_value_that_cannot_be_is_named_before_it_is_sent() {
    let bench = bench("id smallint, day date, name varchar(3)");
    let mut session = bench.session().await;
    for (csv, expected) in [
        (
            "id,day,name\n1,2000-01-01,a\n2,2000-02-30,b\n",
            "t.csv: record 2, byte 27, column day: date/time field value out of range: \"2000-02-30\" [SQLSTATE 22008]",
        ),
        (
            "id,day,name\n1,2000-01-01,abcd\n",
            "t.csv: record 1, byte 12, column name: value too long for type character varying(3) [SQLSTATE 22001]",
        ),
        (
            "id,day,name\n40000,2000-01-01,abc\n",
            "t.csv: record 1, byte 12, column id: value \"40000\" is out of range for type smallint [SQLSTATE 22003]",
        ),
    ] {
        let error = load_t(&mut session, csv.as_bytes(), &LoadOptions::default()).await.unwrap_err();
        assert_eq!(chain(&error), expected);
        assert!(matches!(error, Error::Value { .. }));
        assert!(!error.is_remote());
    }
}
