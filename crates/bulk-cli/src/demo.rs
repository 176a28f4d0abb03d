mod owner;
mod playground;

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use bulk_pg::Session;
use bulk_testkit::s3::{EtagStyle, Store};
use bulk_testkit::{postgres, s3, snapshot};

use self::owner::password;
use self::playground::Playground;
use crate::arguments::{Common, Demo};
use crate::counted::counted;
use crate::exit::{Exit, Failure};
use crate::report::{Report, size};

const BUCKET: &str = "com-courtlistener-storage";
const PREFIX: &str = "bulk-data";
/// The first run is killed when so many chunks of one file are committed, which is in the middle of the largest table.
const KILL_AFTER_CHUNKS: i64 = 3;

const QUERIES: [(&str, &str); 3] = [
    (
        "opinions of each court",
        "SELECT c.short_name || ': ' || count(*) FROM search_opinion o
         JOIN search_opinioncluster k ON k.id = o.cluster_id JOIN search_docket d ON d.id = k.docket_id
         JOIN search_court c ON c.id = d.court_id GROUP BY c.short_name ORDER BY count(*) DESC, 1 LIMIT 5",
    ),
    (
        "the most cited opinions",
        "SELECT k.case_name || ' (' || count(*) || ' citations)' FROM search_opinionscited s
         JOIN search_opinion o ON o.id = s.cited_opinion_id JOIN search_opinioncluster k ON k.id = o.cluster_id
         GROUP BY k.id, k.case_name ORDER BY count(*) DESC, k.id LIMIT 3",
    ),
    (
        "what the load left in its ledger",
        "SELECT count(DISTINCT l.id) || ' files in ' || count(*) || ' chunks of ' || sum(c.records) || ' rows'
         FROM bulk.load l JOIN bulk.chunk c ON c.load_id = l.id",
    ),
];

pub(crate) async fn run(demo: &Demo, common: &Common, report: &Report) -> Result<Exit, Failure> {
    if common.dry_run {
        report.result(match demo.serve {
            true => "would start a PostgreSQL, an S3 server and an API on loopback, and invent what is in them",
            false => {
                "would start a PostgreSQL and an S3 server on loopback, invent a snapshot, and mirror it three times"
            }
        });
        return Ok(Exit::Done);
    }
    let failed = |error: &dyn std::fmt::Display| Failure::new(Exit::Failed, anyhow::anyhow!("{error}"));
    let folder = tempfile::tempdir().map_err(|error| failed(&error))?;
    report.note("starting PostgreSQL …");
    let mut options = postgres::Options::default();
    let superuser = password()?;
    options.password = Some(superuser);
    let server = blocking(move || postgres::Server::start(&options)).await?;
    let database = server.create_database("demo").map_err(|error| failed(&error))?;
    report.note(format!("PostgreSQL {} runs", server.version()));
    let url = match server.is_embedded() {
        true => owner::make(&server, &database, folder.path()).await?,
        // Whoever names a server has roles for it.
        false => database.url().to_owned(),
    };

    let files = folder.path().join("bucket").join(PREFIX);
    let spec = snapshot::Spec {
        scale: demo.scale,
        orphans: 20,
        schema: snapshot::SchemaFlavour::Published,
        ..snapshot::Spec::default()
    };
    std::fs::create_dir_all(&files).map_err(|error| failed(&error))?;
    report.note("inventing a snapshot, as CourtListener publishes them …");
    let made = blocking(move || snapshot::generate(&spec, &files)).await?;
    report.note(format!(
        "a snapshot is invented: {}, {} of CSV, {} as bz2",
        counted(made.rows, "row", "rows"),
        size(made.csv_bytes),
        size(made.bytes)
    ));
    let store = Store::folder(folder.path().join("bucket"), EtagStyle::Multipart);
    if demo.serve {
        let playground = blocking(move || Playground::start(BUCKET, store).map_err(|failure| failure.error)).await?;
        report.note("database, buckets and API run until Ctrl-C; give these lines to another shell:");
        report.result(&playground.lines(&url));
        return std::future::pending().await;
    }
    let bucket = s3::Server::builder().bucket(BUCKET, store).start().map_err(|error| failed(&error))?;
    report.note(format!("an S3 server serves it at {}", bucket.url()));

    let mirror =
        Mirror { endpoint: bucket.url(), db: url.clone(), dir: folder.path().join("files"), is_quiet: common.quiet };
    report.note("\n1. bulk mirror courtlistener, killed in the middle (kill -9):");
    let killed = mirror.run_and_kill(report).await?;
    report.note(if killed { "   killed" } else { "   it was done before it could be killed" });
    report.note("\n2. The same command again goes on where it stopped:");
    let started = Instant::now();
    mirror.run(report).await?;
    let second = started.elapsed();
    report.note("\n3. And once more, when there is nothing left to do:");
    let started = Instant::now();
    mirror.run(report).await?;
    report.note(format!("   in {:.2} s, after {:.1} s", started.elapsed().as_secs_f64(), second.as_secs_f64()));

    report.note("\nQueries:");
    let session = Session::connect(&url).await?;
    for (title, sql) in QUERIES {
        report.result(&format!("  {title}"));
        let rows = session.client().query(sql, &[]).await.map_err(|error| failed(&error))?;
        for row in rows {
            report.result(&format!("    {}", row.get::<_, Option<String>>(0).unwrap_or_default()));
        }
    }
    report.note("\nWith the real bucket (60 GB) and a database of yours:\n  bulk mirror courtlistener --db postgresql://USER@HOST/DATABASE");
    if demo.keep {
        report.result(&format!("database: {url}\nbucket:   {}/{BUCKET}/{PREFIX}/", bucket.url()));
        report.result(&format!("such as:  bulk mirror courtlistener --endpoint {} --db '{url}'", bucket.url()));
        report.note("both run until Ctrl-C");
        std::future::pending::<()>().await;
    }
    Ok(Exit::Done)
}

/// Starting servers and inventing data take seconds of one thread's time.
async fn blocking<T: Send + 'static, E: std::fmt::Display + Send + 'static>(
    work: impl FnOnce() -> Result<T, E> + Send + 'static,
) -> Result<T, Failure> {
    match tokio::task::spawn_blocking(work).await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(Failure::new(Exit::Failed, anyhow::anyhow!("{error}"))),
        Err(error) => Err(Failure::new(Exit::Failed, error)),
    }
}

/// The command that the demo shows, in a process of its own, so that it can be killed as a power cut would.
struct Mirror {
    endpoint: String,
    db: String,
    dir: std::path::PathBuf,
    is_quiet: bool,
}

impl Mirror {
    fn command(&self) -> Result<Command, Failure> {
        let program = std::env::current_exe().map_err(|error| Failure::new(Exit::Failed, error))?;
        let mut command = Command::new(program);
        if self.is_quiet {
            command.arg("--quiet");
        }
        command.args(["mirror", "courtlistener", "--endpoint", &self.endpoint, "--dir"]).arg::<&Path>(&self.dir);
        // The URL may hold a password, which arguments would show to everyone on the machine.
        command.env("BULK_DB", &self.db).stdin(Stdio::null());
        // So that something is committed when it is killed.
        command.env("BULK_COMMIT_EVERY", "50ms");
        Ok(command)
    }

    async fn run(&self, report: &Report) -> Result<(), Failure> {
        let mut command = self.command()?;
        let status = blocking(move || command.status()).await?;
        match status.code() {
            Some(0) => Ok(()),
            Some(3) => {
                report.note("   (exit status 3: loaded, with the violations of the schema that are listed above)");
                Ok(())
            }
            _ => Err(Failure::new(Exit::Failed, anyhow::anyhow!("bulk mirror ended with {status}"))),
        }
    }

    /// Whether it could be killed before it was done.
    async fn run_and_kill(&self, report: &Report) -> Result<bool, Failure> {
        let failed = |error: std::io::Error| Failure::new(Exit::Failed, error);
        let session = Session::connect(&self.db).await?;
        let mut child = self.command()?.spawn().map_err(failed)?;
        loop {
            if child.try_wait().map_err(failed)?.is_some() {
                return Ok(false);
            }
            // Until the ledger is made, the query fails.
            let chunks = session.client().query("SELECT count(*) FROM bulk.chunk GROUP BY load_id", &[]).await;
            let chunks: Vec<i64> = chunks.iter().flatten().map(|row| row.get(0)).collect();
            if chunks.iter().any(|chunks| *chunks >= KILL_AFTER_CHUNKS) {
                child.kill().map_err(failed)?;
                child.wait().map_err(failed)?;
                let committed = counted(chunks.iter().sum::<i64>(), "chunk was", "chunks were");
                report.note(format!("   {committed} committed"));
                return Ok(true);
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}
