//! What is particular to known objects in a table of PostgreSQL.

use bulk_s3::conformance::KnownConformance;
use bulk_s3::{
    Batch, Error, KeyRange, KnownChange, KnownObjects, KnownTable, ObjectRef, PostgresKnown, PostgresOptions, RowPolicy,
};
use bulk_testkit::postgres::{Database, DatabaseUrl, Options, Server, shared};
use tokio_postgres::{Client, NoTls};

struct Bench {
    database: Database,
}

impl Bench {
    fn new(sql: &str) -> Self {
        let bench = Self { database: shared().unwrap().create_database("known").unwrap() };
        bench.psql(sql);
        bench
    }

    /// A database that sorts texts as people do.
    fn linguistic(sql: &str) -> Self {
        let server = shared().unwrap();
        let bench = Self { database: server.create_database("known_icu").unwrap() };
        let name = bench.database.name();
        let create = format!(
            "CREATE DATABASE \"{name}\" TEMPLATE template0 ENCODING 'UTF8' LOCALE_PROVIDER icu ICU_LOCALE 'und' LOCALE 'C'"
        );
        for sql in [&format!("DROP DATABASE \"{name}\""), &create] {
            server.psql(server.url(), sql).unwrap();
        }
        assert_eq!(
            bench.psql("SELECT string_agg(x, ' ' ORDER BY x) FROM unnest('{a-b,aB,ab,Ä,B,b}'::text[]) x"),
            "Ä a-b ab aB b B\n"
        );
        bench.psql(sql);
        bench
    }

    fn psql(&self, sql: &str) -> String {
        shared().unwrap().psql(self.database.url(), sql).unwrap()
    }

    async fn connect(&self, table: KnownTable) -> Result<PostgresKnown, Error> {
        PostgresKnown::connect(self.database.url(), "data", table, PostgresOptions::default()).await
    }

    async fn client(&self) -> Client {
        let (client, connection) = tokio_postgres::connect(self.database.url(), NoTls).await.unwrap();
        tokio::spawn(connection);
        client
    }
}

/// The table that Buildhub has, as far as it matters.
fn builds() -> KnownTable {
    let column = |name: &str| name.parse().unwrap();
    KnownTable::new("builds".parse().unwrap(), column("s3_object_key"), column("s3_object_etag"))
}

fn of_texts() -> KnownConformance {
    let mut conformance = KnownConformance::default();
    conformance.keys.retain(|key| !key.contains('\0'));
    conformance
}

fn of_builds() -> KnownConformance {
    let mut conformance = of_texts();
    (conformance.keeps_sizes, conformance.keeps_times, conformance.keeps_contents) = (false, false, false);
    conformance
}

fn object<'a>(key: &'a str, etag: &'a str) -> ObjectRef<'a> {
    let mut object = ObjectRef::new(key);
    object.etag = Some(etag);
    object
}

fn set<'a>(key: &'a str, etag: &'a str) -> KnownChange<'a> {
    KnownChange::Set(object(key, etag))
}

async fn keys(known: &PostgresKnown) -> Vec<String> {
    let batch = known.scan(&KeyRange::all(), 1000).await.unwrap();
    batch.iter().map(|object| object.key.to_owned()).collect()
}

/// The message, with its causes.
fn told(error: &Error) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text += &format!(": {cause}");
        source = cause.source();
    }
    text
}

/// What stands behind the name of the store.
fn what(error: &Error) -> String {
    let Error::Known { what, source, .. } = error else { panic!("{error:?}") };
    source.as_ref().map_or_else(|| what.clone(), |source| format!("{what}: {source}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_table_of_ours_conforms() {
    let bench = Bench::new("");
    let known = bench.connect(KnownTable::default()).await.unwrap();
    assert_eq!(known.missing_index(), None);
    of_texts().check(&known).await.unwrap();
    // Beside another bucket, whose objects stay what they are.
    let other = PostgresKnown::connect(bench.database.url(), "it's", KnownTable::default(), PostgresOptions::default());
    let other = other.await.unwrap();
    other.apply(&[set("a/b", "1"), set("m", "1")]).await.unwrap();
    of_texts().check(&known).await.unwrap();
    assert_eq!(keys(&other).await, ["a/b", "m"]);
    assert_ne!(other.identity(), known.identity());
    let name = bench.database.name();
    assert!(known.identity().starts_with(&format!("database {name:?} at ")), "{}", known.identity());
    assert!(known.identity().ends_with(", table bulk.known_object, bucket \"data\""), "{}", known.identity());
}

#[tokio::test(flavor = "multi_thread")]
async fn one_connection_is_enough() {
    let bench = Bench::new("");
    let mut options = PostgresOptions::default();
    options.connections = 1;
    let known = PostgresKnown::connect(bench.database.url(), "data", KnownTable::default(), options).await.unwrap();
    of_texts().check(&known).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_of_the_users_conforms() {
    let table = "CREATE TABLE builds (id bigserial PRIMARY KEY, s3_object_key text, s3_object_etag varchar)";
    let index = |how: &str| format!("{table}; CREATE {how}");
    for sql in [
        // The test server's default collation is C, and so is this index.
        index("INDEX ON builds (s3_object_key)"),
        index("UNIQUE INDEX ON builds (s3_object_key COLLATE \"C\")"),
        index("INDEX ON builds (s3_object_key) WHERE s3_object_key IS NOT NULL"),
    ] {
        let bench = Bench::new(&sql);
        let known = bench.connect(builds()).await.unwrap();
        assert_eq!(known.missing_index(), None, "{sql}");
        of_builds().check(&known).await.unwrap();
        assert!(known.identity().ends_with(", table public.builds (s3_object_key, s3_object_etag)"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_sorts_as_people_do_conforms() {
    let table = "CREATE TABLE builds (id bigserial PRIMARY KEY, s3_object_key text, s3_object_etag text);";
    for more in ["", "CREATE UNIQUE INDEX ON builds (s3_object_key)", "CREATE INDEX ON builds (s3_object_key)"] {
        let bench = Bench::linguistic(&format!("{table} {more}"));
        let known = bench.connect(builds()).await.unwrap();
        let statement = "CREATE INDEX CONCURRENTLY ON \"public\".\"builds\" (\"s3_object_key\" COLLATE \"C\")";
        assert_eq!(known.missing_index(), Some(statement), "{more}");
        of_builds().check(&known).await.unwrap();
        bench.psql(statement);
        let known = bench.connect(builds()).await.unwrap();
        assert_eq!(known.missing_index(), None);
        of_builds().check(&known).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn columns_of_other_types_conform() {
    let bench = Bench::linguistic(
        "CREATE DOMAIN object_path AS varchar(2000) CHECK (VALUE <> '');
         CREATE COLLATION same (PROVIDER = icu, LOCALE = 'und-u-ks-level1', DETERMINISTIC = false);
         CREATE SCHEMA \"My Files\";
         CREATE TABLE \"My Files\".\"Objects\" (\"Bucket\" varchar(20), path object_path, tag varchar(80), size numeric,
             changed timestamp, seen timestamp, digest bytea, note text DEFAULT 'x');
         CREATE TABLE loose (key text COLLATE same, etag text COLLATE same)",
    );
    let column = |name: &str| Some(name.parse().unwrap());
    let mut table =
        KnownTable::new("\"My Files\".\"Objects\"".parse().unwrap(), "path".parse().unwrap(), "tag".parse().unwrap());
    (table.bucket, table.size, table.last_modified) = (column("\"Bucket\""), column("size"), column("changed"));
    (table.seen_at, table.content) = (column("seen"), column("digest"));
    let mut conformance = of_texts();
    let known = bench.connect(table.clone()).await.unwrap();
    let statement = "CREATE INDEX CONCURRENTLY ON \"My Files\".\"Objects\" (\"Bucket\", \"path\" COLLATE \"C\")";
    assert_eq!(known.missing_index(), Some(statement));
    conformance.check(&known).await.unwrap();
    bench.psql(statement);
    let known = bench.connect(table).await.unwrap();
    assert_eq!(known.missing_index(), None);
    conformance.check(&known).await.unwrap();
    known.apply(&[set("a", "1")]).await.unwrap();
    let row = "SELECT \"Bucket\", path, tag, note, now() AT TIME ZONE 'UTC' - seen < '1 minute' FROM \"My Files\".\"Objects\"";
    assert_eq!(bench.psql(row), "data|a|1|x|t\n");

    // By this collation "ab", "aB" and "Ab" are equal.
    let table = KnownTable::new("loose".parse().unwrap(), "key".parse().unwrap(), "etag".parse().unwrap());
    conformance = of_builds();
    conformance.check(&bench.connect(table.clone()).await.unwrap()).await.unwrap();
    let known = bench.connect(table).await.unwrap();
    known.apply(&[set("a", "ab"), set("A", "1")]).await.unwrap();
    known.apply(&[set("a", "AB")]).await.unwrap();
    let found = known.scan(&KeyRange::all(), 10).await.unwrap();
    assert!(found.iter().eq([object("A", "1"), object("a", "AB")]), "{found:?}");
}

#[tokio::test]
async fn partitions_and_views_are_read() {
    let bench = Bench::new(
        "CREATE TABLE builds (s3_object_key text, s3_object_etag text) PARTITION BY HASH (s3_object_key);
         CREATE TABLE builds_0 PARTITION OF builds FOR VALUES WITH (MODULUS 2, REMAINDER 0);
         CREATE TABLE builds_1 PARTITION OF builds FOR VALUES WITH (MODULUS 2, REMAINDER 1);
         CREATE VIEW newest AS SELECT s3_object_key, max(s3_object_etag) AS s3_object_etag FROM builds GROUP BY 1",
    );
    let known = bench.connect(builds()).await.unwrap();
    assert_eq!(known.missing_index(), Some("CREATE INDEX ON \"public\".\"builds\" (\"s3_object_key\" COLLATE \"C\")"));
    of_builds().check(&known).await.unwrap();
    // Of rows that were updated a new index must not be used while another session's snapshot is older (indcheckxmin).
    bench.psql("TRUNCATE builds; CREATE INDEX ON builds (s3_object_key COLLATE \"C\")");
    let known = bench.connect(builds()).await.unwrap();
    assert_eq!(known.missing_index(), None);
    of_builds().check(&known).await.unwrap();
    // A view that shows one of several rows.
    bench.psql("INSERT INTO builds VALUES ('b', '1'), ('b', '2'), ('a', '1')");
    let mut table = builds();
    table.name = "newest".parse().unwrap();
    let view = bench.connect(table).await.unwrap();
    let found = view.scan(&KeyRange::all(), 10).await.unwrap();
    assert!(found.iter().eq([object("a", "1"), object("b", "2")]), "{found:?}");
    assert_eq!(view.split_points(&KeyRange::all(), 2).await.unwrap(), [""; 0]);
    let error = view.apply(&[set("c", "1")]).await.unwrap_err();
    assert!(what(&error).starts_with("cannot write: cannot update view \"newest\""), "{}", what(&error));
}

#[tokio::test]
async fn rows_without_a_key_are_passed_over_and_two_of_one_refused() {
    for (more, sorted) in [("CREATE INDEX ON builds (s3_object_key COLLATE \"C\")", false), ("", true)] {
        let bench = Bench::linguistic(&format!(
            "CREATE TABLE builds (s3_object_key text, s3_object_etag text); {more};
             INSERT INTO builds VALUES ('a', '\"1\"'), (NULL, '2'), ('b', NULL), (NULL, NULL), ('c', '3')"
        ));
        let known = bench.connect(builds()).await.unwrap();
        assert_eq!(known.missing_index().is_some(), sorted);
        let found = known.scan(&KeyRange::all(), 10).await.unwrap();
        assert!(found.iter().eq([object("a", "1"), ObjectRef::new("b"), object("c", "3")]), "{found:?}");
        bench.psql("INSERT INTO builds VALUES ('b', 'x')");
        known.forget_sorted().await;
        let twice = "public.builds has several rows of the key \"b\", so nobody can say which ETag is right; delete all but one, or name a view that shows one of them";
        // Also where the second row would be on the next page.
        for limit in [2, 3, 10] {
            let error = known.scan(&KeyRange::all(), limit).await.unwrap_err();
            let wanted = if sorted {
                twice.replace("the key \"b\"", "a key (Key (key)=(b) is duplicated.)")
            } else {
                twice.to_owned()
            };
            assert_eq!(what(&error), wanted);
        }
        let error = known.apply(&[set("a", "2"), set("b", "y")]).await.unwrap_err();
        assert_eq!(what(&error), twice);
        assert_eq!(bench.psql("SELECT s3_object_etag FROM builds WHERE s3_object_key = 'a'"), "\"1\"\n");
        // What is known no more goes with all of its rows.
        known.apply(&[KnownChange::Remove("b")]).await.unwrap();
        assert_eq!(keys(&known).await, ["a", "c"]);
        assert_eq!(bench.psql("SELECT count(*) FROM builds"), "4\n");
    }
}

#[tokio::test]
async fn other_columns_of_the_table_are_the_users() {
    let bench = Bench::new(
        "CREATE TABLE builds (s3_object_key text UNIQUE, s3_object_etag text, build jsonb NOT NULL);
         INSERT INTO builds VALUES ('a', '1', '{}'), ('b', '1', '{}')",
    );
    let known = bench.connect(builds()).await.unwrap();
    known.apply(&[set("a", "2")]).await.unwrap();
    let rows = || bench.psql("SELECT s3_object_key, s3_object_etag, build FROM builds ORDER BY 1");
    assert_eq!(rows(), "a|2|{}\nb|1|{}\n");
    // One that it cannot insert fails, with all others.
    let changes = [set("a", "3"), KnownChange::Remove("b"), set("c", "1")];
    let error = known.apply(&changes).await.unwrap_err();
    let refusal = "cannot write: null value in column \"build\" of relation \"builds\" violates not-null constraint";
    assert!(what(&error).starts_with(refusal), "{}", what(&error));
    assert_eq!(rows(), "a|2|{}\nb|1|{}\n");
    // Rows are only updated.
    let mut table = builds();
    table.rows = RowPolicy::UpdateOnly;
    let known = bench.connect(table).await.unwrap();
    known.apply(&changes).await.unwrap();
    assert_eq!(rows(), "a|3|{}\nb|1|{}\n");
}

#[tokio::test]
async fn an_object_is_marked_in_the_transaction_that_stores_it() {
    let bench = Bench::new("CREATE TABLE stored (key text)");
    let known = bench.connect(KnownTable::default()).await.unwrap();
    let mut client = bench.client().await;
    for is_kept in [false, true] {
        let transaction = client.transaction().await.unwrap();
        for key in ["a", "b", "c"] {
            transaction.execute("INSERT INTO stored VALUES ($1)", &[&key]).await.unwrap();
            known.apply_in(&transaction, &[set(key, "1"), KnownChange::Remove("absent")]).await.unwrap();
        }
        // What cannot be kept is found before anything is done.
        let error = known.apply_in(&transaction, &[set("d", "1"), set("a\0b", "1")]).await.unwrap_err();
        let wanted = format!(
            "known objects in {}: \"a\\0b\" cannot be kept: it holds U+0000, which no text of PostgreSQL can",
            known.identity()
        );
        assert_eq!(error.to_string(), wanted);
        known.apply_in(&transaction, &[KnownChange::Remove("b")]).await.unwrap();
        known.apply_in(&transaction, &[]).await.unwrap();
        assert_eq!(keys(&known).await, [""; 0]);
        match is_kept {
            true => transaction.commit().await.unwrap(),
            false => transaction.rollback().await.unwrap(),
        }
    }
    assert_eq!(keys(&known).await, ["a", "c"]);
    assert_eq!(bench.psql("SELECT key FROM stored ORDER BY 1"), "a\nb\nc\n");
}

#[tokio::test]
async fn a_sorted_copy_is_made_anew_when_it_is_forgotten() {
    let bench = Bench::linguistic(
        "CREATE TABLE builds (s3_object_key text, s3_object_etag text); INSERT INTO builds VALUES ('a', '1')",
    );
    let known = bench.connect(builds()).await.unwrap();
    assert_eq!(keys(&known).await, ["a"]);
    let mut client = bench.client().await;
    let transaction = client.transaction().await.unwrap();
    known.apply_in(&transaction, &[set("b", "1")]).await.unwrap();
    transaction.commit().await.unwrap();
    assert_eq!(keys(&known).await, ["a"]);
    known.apply(&[set("c", "1")]).await.unwrap();
    assert_eq!(keys(&known).await, ["a", "c"]);
    known.forget_sorted().await;
    assert_eq!(keys(&known).await, ["a", "b", "c"]);
}

#[tokio::test]
async fn tables_that_will_not_do_are_refused() {
    let bench = Bench::new(
        "CREATE TABLE builds (id integer, s3_object_key text, s3_object_etag text, size text, changed date, digest text);
         CREATE TABLE fixed (s3_object_key char(10), s3_object_etag text)",
    );
    let column = |name: &str| name.parse().unwrap();
    let refused = async |table: KnownTable| what(&bench.connect(table).await.unwrap_err());
    let mut table = builds();
    table.name = "absent".parse().unwrap();
    assert_eq!(refused(table).await, "table public.absent does not exist in the database");
    let mut table = builds();
    table.key = column("key");
    assert_eq!(refused(table).await, "table public.builds has no column key");
    let mut table = builds();
    table.etag = column("id");
    assert_eq!(refused(table).await, "column id of public.builds is of type integer, and must be text or varchar");
    let mut table = builds();
    table.name = column("fixed").as_str().parse().unwrap();
    let message = "column s3_object_key of public.fixed is of type character(10), and must be text or varchar";
    assert_eq!(refused(table).await, message);
    let mut table = builds();
    table.size = Some(column("size"));
    let message = "column size of public.builds is of type text, and must be bigint, integer or numeric";
    assert_eq!(refused(table).await, message);
    let mut table = builds();
    table.last_modified = Some(column("changed"));
    let message = "column changed of public.builds is of type date, and must be timestamptz or timestamp";
    assert_eq!(refused(table).await, message);
    let mut table = builds();
    table.content = Some(column("digest"));
    assert_eq!(refused(table).await, "column digest of public.builds is of type text, and must be bytea");

    let server = shared().unwrap();
    let latin = server.create_database("known_latin").unwrap();
    let name = latin.name();
    server.psql(server.url(), &format!("DROP DATABASE \"{name}\"")).unwrap();
    let create = format!("CREATE DATABASE \"{name}\" TEMPLATE template0 ENCODING 'LATIN1' LOCALE 'C'");
    server.psql(server.url(), &create).unwrap();
    let error = PostgresKnown::connect(latin.url(), "data", KnownTable::default(), PostgresOptions::default()).await;
    assert_eq!(what(&error.unwrap_err()), "the database's encoding is LATIN1; keys need UTF8");
}

#[tokio::test]
async fn values_that_are_none_of_an_object_are_told() {
    let bench = Bench::new(
        "CREATE TABLE builds (s3_object_key text UNIQUE, s3_object_etag text, size integer, changed timestamptz, digest bytea)",
    );
    let mut table = builds();
    table.size = Some("size".parse().unwrap());
    table.last_modified = Some("changed".parse().unwrap());
    table.content = Some("digest".parse().unwrap());
    let known = bench.connect(table).await.unwrap();
    for (values, message) in [
        ("-1, NULL, NULL", "public.builds has a size of less than nothing for the key \"a\""),
        ("NULL, '20000-01-01', NULL", "public.builds has a time beyond the year 9999 for the key \"a\""),
        ("NULL, NULL, 'abc'", "public.builds has a digest that is none of 32 bytes for the key \"a\""),
    ] {
        bench.psql(&format!("TRUNCATE builds; INSERT INTO builds VALUES ('a', '1', {values})"));
        assert_eq!(what(&known.scan(&KeyRange::all(), 10).await.unwrap_err()), message);
    }
    bench.psql("TRUNCATE builds; INSERT INTO builds VALUES ('a', NULL, NULL, 'infinity', NULL)");
    assert_eq!(known.scan(&KeyRange::all(), 10).await.unwrap(), Batch::from_iter([ObjectRef::new("a")]));
    // A number that its column has no room for is the server's to refuse.
    let mut large = ObjectRef::new("b");
    large.size = Some(1 << 40);
    let error = known.apply(&[KnownChange::Set(large)]).await.unwrap_err();
    assert_eq!(what(&error), "cannot write: integer out of range [SQLSTATE 22003]");
}

#[tokio::test(flavor = "multi_thread")]
async fn several_may_make_the_table_at_once() {
    let bench = Bench::new("");
    let tasks = (0..6).map(|_| {
        let url = bench.database.url().to_owned();
        tokio::spawn(async move {
            PostgresKnown::connect(&url, "data", KnownTable::default(), PostgresOptions::default()).await.map(drop)
        })
    });
    for task in tasks.collect::<Vec<_>>() {
        task.await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn a_role_needs_no_more_than_the_table() {
    let bench = Bench::new("");
    drop(bench.connect(KnownTable::default()).await.unwrap());
    let role = format!("reader_{}", bench.database.name());
    bench.psql(&format!(
        "CREATE ROLE \"{role}\" LOGIN; GRANT USAGE ON SCHEMA bulk TO \"{role}\";
         GRANT SELECT, INSERT, UPDATE, DELETE ON bulk.known_object TO \"{role}\""
    ));
    let url =
        format!("{}{}user={role}", bench.database.url(), if bench.database.url().contains('?') { '&' } else { '?' });
    let known = PostgresKnown::connect(&url, "data", KnownTable::default(), PostgresOptions::default()).await.unwrap();
    known.apply(&[set("a", "1")]).await.unwrap();
    assert_eq!(keys(&known).await, ["a"]);
    bench.psql(&format!("REVOKE UPDATE ON bulk.known_object FROM \"{role}\""));
    let error = known.apply(&[set("a", "2")]).await.unwrap_err();
    assert_eq!(what(&error), "cannot write: permission denied for table known_object [SQLSTATE 42501]");
    assert!(error.is_denied() && !error.is_remote());
    bench.psql(&format!("DROP OWNED BY \"{role}\"; DROP ROLE \"{role}\""));
}

#[tokio::test]
async fn a_lost_connection_is_told_and_the_next_call_has_another() {
    let bench = Bench::new("");
    let known = bench.connect(KnownTable::default()).await.unwrap();
    known.apply(&[set("a", "1")]).await.unwrap();
    // The lock makes it wait, so that it is lost in the middle.
    let mut client = bench.client().await;
    let transaction = client.transaction().await.unwrap();
    transaction.batch_execute("LOCK TABLE bulk.known_object").await.unwrap();
    let waiting = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
    let terminate = async { while transaction.query_opt(waiting, &[]).await.unwrap().is_none() {} };
    let changes = [set("a", "2")];
    let (lost, ()) = tokio::join!(known.apply(&changes), terminate);
    let error = lost.unwrap_err();
    assert!(error.is_remote() && !error.is_denied(), "{error:?}");
    let cause = "cannot write: terminating connection due to administrator command [SQLSTATE 57P01]";
    assert_eq!(what(&error), cause);
    transaction.commit().await.unwrap();
    // One that was lost while it was idle is not given out.
    bench.psql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()");
    let mut left = 100;
    let found = loop {
        // The word of its end may come after the call has begun.
        match known.scan(&KeyRange::all(), 10).await {
            Err(error) if error.is_remote() && left > 0 => left -= 1,
            found => break found.unwrap(),
        }
    };
    assert!(found.iter().eq([object("a", "1")]), "{found:?}");
}

#[tokio::test]
async fn no_secret_is_shown() {
    let mut options = Options::default();
    options.database_url = DatabaseUrl::Ignore;
    options.password = Some("s3cr3t-w0rd".to_owned());
    let server = Server::start(&options).unwrap();
    let database = server.create_database("known").unwrap();
    let known = PostgresKnown::connect(database.url(), "data", KnownTable::default(), PostgresOptions::default());
    let known = known.await.unwrap();
    let mut conformance = of_texts();
    conformance.secrets = vec!["s3cr3t-w0rd".to_owned()];
    conformance.changes = 10;
    conformance.check(&known).await.unwrap();
    assert!(!format!("{known:?}").contains("s3cr3t"), "{known:?}");
    let wrong = database.url().replace("s3cr3t-w0rd", "wr0ng-w0rd");
    assert_ne!(wrong, database.url());
    let error =
        PostgresKnown::connect(&wrong, "data", KnownTable::default(), PostgresOptions::default()).await.unwrap_err();
    assert!(error.is_denied() && !error.is_remote());
    assert!(!format!("{} {error:?}", told(&error)).contains("wr0ng"), "{error:?}");
    server.kill().unwrap();
    let error = known.scan(&KeyRange::all(), 10).await.unwrap_err();
    assert!(error.is_remote(), "{error:?}");
    let error = known.scan(&KeyRange::all(), 10).await.unwrap_err();
    assert!(error.is_remote(), "{error:?}");
    assert!(!format!("{} {error:?}", told(&error)).contains("s3cr3t"), "{error:?}");
}

#[tokio::test]
async fn seen_at_is_when_it_was_first_seen_so() {
    let bench = Bench::new("");
    let known = bench.connect(KnownTable::default()).await.unwrap();
    known.apply(&[set("a", "1")]).await.unwrap();
    let seen = || bench.psql("SELECT seen_at, xmin FROM bulk.known_object");
    let first = seen();
    known.apply(&[set("a", "1")]).await.unwrap();
    assert_eq!(seen(), first, "the row was not written again");
    known.apply(&[set("a", "2")]).await.unwrap();
    assert!(seen() > first);
}

#[tokio::test]
async fn a_large_table_is_split_by_a_sample_of_its_pages() {
    let bench = Bench::new("");
    let known = bench.connect(KnownTable::default()).await.unwrap();
    // Nearly all of them below one prefix; a third are of another bucket.
    bench.psql(
        "INSERT INTO bulk.known_object (bucket, key)
         SELECT CASE WHEN n % 3 = 0 THEN 'other' ELSE 'data' END,
                CASE WHEN n % 50 = 0 THEN 'a/' ELSE 'hot/' END || lpad((n::bigint * 7919 % 300000)::text, 8, '0')
         FROM generate_series(1, 300000) n",
    );
    let all: Vec<String> =
        bench.psql("SELECT key FROM bulk.known_object WHERE bucket = 'data'").lines().map(str::to_owned).collect();
    assert_eq!(all.len(), 200_000);
    let narrow = KeyRange::new(Some("hot/00000100".to_owned()), Some("hot/00009999".to_owned()));
    for (range, parts) in [(KeyRange::all(), 16), (narrow, 4)] {
        let points = known.split_points(&range, parts).await.unwrap();
        assert_eq!(points.len(), parts - 1, "{range}");
        let count = |range: &KeyRange| all.iter().filter(|key| range.contains(key)).count();
        let (fair, mut rest) = (count(&range) / parts, range);
        for point in &points {
            let (stretch, next) = rest.split_behind(point);
            assert!(
                (fair / 2..fair * 2).contains(&count(&stretch)),
                "{stretch} has {}, fair is {fair}",
                count(&stretch)
            );
            rest = next;
        }
    }
}
