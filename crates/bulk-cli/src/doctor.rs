use std::path::Path;

use bulk_core::{Get, RetryPolicy, Source};
use bulk_pg::{ExportSnapshot, ExportSnapshotOptions, Unseen, server_access};
use clap::Parser;
use futures::TryStreamExt;
use serde_json::json;

use crate::arguments::{Arguments, BucketArguments, Command, DatabaseArguments, Doctor};
use crate::counted::counted;
use crate::dataset::Dataset;
use crate::exit::{Exit, Failure};
use crate::report::{Report, size};
use crate::source::{Place, WebFile};
use crate::{crawl, export, mirror};

/// Oldest server that loads are tested with.
const OLDEST_SERVER: i32 = 13;
/// What is looked at where nobody says what.
const DATASET: &str = "courtlistener";
/// Files and connections that a run with the highest defaults has open, and some.
const OPEN_FILES: u64 = 512;

/// What is found in order, or why it is not and how that is mended.
type Finding = Result<String, (Failure, &'static str)>;

pub(crate) async fn run(doctor: &Doctor, report: &Report) -> Result<Exit, Failure> {
    let given = doctor.what.iter().map(|what| Subject::find(what, doctor)).collect::<Result<Vec<_>, _>>()?;
    let subjects = match given.is_empty() {
        true => vec![Subject::find(DATASET, doctor)?],
        false => given,
    };
    let mut exit = Exit::Done;
    let mut check = |name: &str, result: Finding| match result {
        Ok(text) => {
            report.event("check", &format!("ok    {name}: {text}"), json!({"check": name, "ok": true}));
        }
        Err((failure, mend)) => {
            let error = format!("{:#}", failure.error);
            let text = format!("fails {name}: {error}\n      mend: {mend}");
            let fields = json!({"check": name, "ok": false, "error": error, "mend": mend});
            report.found(&text, fields);
            exit = exit.max(failure.exit);
        }
    };
    let is_given = doctor.database.target.given().is_some();
    if is_given {
        // An export reads, and keeps its ledger in its folder.
        let writes = !subjects.iter().all(|subject| matches!(subject, Subject::Export(_)));
        check("database", database(&doctor.database, writes).await);
    } else {
        report.note("      database: not checked; give --db URL, or PGDATABASE and its like");
    }
    for subject in subjects {
        match subject {
            Subject::Place { source, arguments } => check("bucket", bucket(&source, &arguments, report).await),
            Subject::Web(url) => check("file", web_file(&url).await),
            Subject::Export(_) | Subject::Crawl(_) if !is_given => {
                report.note(format!("      {}: not checked; give --db URL", subject.name()));
            }
            Subject::Export(spec) => check("export", export_spec(&spec, doctor).await),
            Subject::Crawl(spec) => check("crawl", crawl_spec(&spec, doctor).await),
        }
    }
    check("disk", disk(&doctor.dir));
    check("limits", limits());
    Ok(exit)
}

/// What somebody wants to work with.
enum Subject {
    Place { source: String, arguments: BucketArguments },
    Web(String),
    Export(String),
    Crawl(String),
}

impl Subject {
    fn find(what: &str, doctor: &Doctor) -> Result<Self, Failure> {
        if what.starts_with("https://") || what.starts_with("http://") {
            return Ok(Self::Web(what.to_owned()));
        }
        if !what.contains("://") && Path::new(what).extension().is_some_and(|extension| extension == "toml") {
            let text = std::fs::read_to_string(what)
                .map_err(|error| Failure::usage(format!("cannot read {what}: {error}")))?;
            // What is wrong with it is told by who reads it whole.
            let table: toml::Table = text.parse().unwrap_or_default();
            if table.contains_key("request") {
                return Ok(Self::Crawl(what.to_owned()));
            }
            if table.contains_key("type") {
                return Ok(Self::Export(what.to_owned()));
            }
        }
        let (source, arguments) = Dataset::locate(what, &doctor.bucket)?;
        Ok(Self::Place { source, arguments })
    }

    fn name(&self) -> &str {
        match self {
            Self::Place { source: name, .. } | Self::Web(name) | Self::Export(name) | Self::Crawl(name) => name,
        }
    }
}

/// Whether the database lets us work in it, and, where something `writes`, keep a ledger there.
async fn database(arguments: &DatabaseArguments, writes: bool) -> Finding {
    let session = arguments
        .connect()
        .await
        .map_err(|failure| (failure, "check host, port, user and password in --db, and that the server runs"))?;
    let sql = "SELECT current_setting('server_version'), current_setting('server_version_num')::int,
                      COALESCE((SELECT has_schema_privilege(n.oid, 'CREATE')
                                       OR has_schema_privilege(n.oid, 'USAGE')
                                          AND EXISTS (SELECT FROM pg_catalog.pg_class WHERE relnamespace = n.oid AND relname = 'load')
                                FROM pg_catalog.pg_namespace n WHERE nspname = 'bulk'),
                               has_database_privilege(current_database(), 'CREATE')),
                      current_setting('max_connections')::bigint - (SELECT sum(numbackends)::bigint FROM pg_stat_database)";
    let failed = |error| (Failure::new(Exit::Failed, error), "see the server's log");
    let row = session.client().query_one(sql, &[]).await.map_err(failed)?;
    let (version, number): (String, i32) = (row.get(0), row.get(1));
    if number / 10_000 < OLDEST_SERVER {
        let what = anyhow::anyhow!("the server is PostgreSQL {version}");
        return Err((Failure::new(Exit::Failed, what), "use PostgreSQL 13 or newer"));
    }
    if writes && !row.get::<_, bool>(2) {
        let what = anyhow::anyhow!("the role may not create the schema bulk for the ledger in {}", session.target());
        let mend = "GRANT CREATE ON DATABASE … TO the role, or CREATE SCHEMA bulk AUTHORIZATION the role";
        return Err((Failure::new(Exit::Denied, what), mend));
    }
    let compression = match session.uses_lz4() {
        true => "by lz4",
        false => "as the server is set up, because it was built without lz4 or --no-lz4 says so",
    };
    let free: i64 = row.get(3);
    let access = server_access(&session).await.map_err(|error| (error.into(), "see the server's log"))?;
    let power = access.map_or_else(String::new, |access| {
        let power = mirror::power(&access);
        format!("; {power}, and bulk mirror runs a schema's functions as it: one that owns its database is enough")
    });
    Ok(format!(
        "{}, PostgreSQL {version}, wide columns compressed {compression}, {} free{power}",
        session.target(),
        counted(free.max(0), "connection", "connections")
    ))
}

async fn bucket(source: &str, arguments: &BucketArguments, report: &Report) -> Finding {
    let mend = match source.starts_with("file://") {
        true => "make the folder, or name another one as the source",
        false => {
            "check the network, --endpoint and --region, and the proxy variables; a public bucket wants --anonymous"
        }
    };
    let place = Place::open_with(source, arguments, impatient(), report).map_err(|failure| (failure, mend))?;
    let first = match &place {
        Place::Bucket { bucket, prefix } => {
            std::pin::pin!(bucket.list(prefix)).try_next().await.map_err(|error| (error.into(), mend))?
        }
        Place::Folder(_) => place.list().await.map_err(|failure| (failure, mend))?.into_iter().next(),
    };
    match first {
        Some(object) => Ok(format!("{} answers; its first object is {}", place.location(), object.key)),
        None => {
            let what = anyhow::anyhow!("{} is empty", place.location());
            Err((Failure::new(Exit::Failed, what), "check the prefix"))
        }
    }
}

/// Who asks what is wrong wants to hear it, rather than that it passes.
fn impatient() -> RetryPolicy {
    let mut retry = RetryPolicy::default();
    retry.attempts = 2;
    retry
}

async fn web_file(url: &str) -> Finding {
    let mend = "check the URL, the network and the proxy variables";
    let Some(file) = WebFile::open(url).map_err(|failure| (failure, mend))? else {
        return Err((Failure::usage(format!("{url}: the URL names no file")), "name a file, not a folder"));
    };
    let body = file.source.get(&Get::new(&file.request.key)).await.map_err(|error| (error.into(), mend))?;
    let location = file.source.location(&file.request.key);
    Ok(match body.size {
        Some(bytes) => format!("{location} answers, with {}", size(bytes)),
        None => format!("{location} answers, and does not say how large the file is"),
    })
}

/// Whether the server has the rows that a spec speaks of, and gives them.
async fn export_spec(path: &str, doctor: &Doctor) -> Finding {
    let mend = "mend the spec, or GRANT SELECT on its tables to the role";
    let failed = |failure: Failure| (failure, mend);
    let spec = export::Spec::read(Path::new(path)).map_err(failed)?;
    let url = doctor.database.target.url().map_err(failed)?;
    let mut options = ExportSnapshotOptions::default();
    options.connections = 1;
    options.time_zone.clone_from(&spec.time_zone);
    let snapshot = ExportSnapshot::open(url, options).await.map_err(|error| (error.into(), mend))?;
    for source in &spec.types {
        snapshot.prepare(source).await.map_err(|error| (error.into(), mend))?;
    }
    let sight = match snapshot.unseen() {
        [] => "the role sees all open transactions",
        [Unseen::Primary, ..] | [_, Unseen::Primary, ..] => {
            "a standby does not see the open transactions of its primary, so --overlap has to be longer than they"
        }
        [Unseen::Prepared] => {
            "nobody can tell when prepared transactions began, so --overlap has to be longer than they took until then"
        }
        _ => {
            "the role does not see all open transactions (GRANT pg_read_all_stats), so --overlap has to be longer than they"
        }
    };
    Ok(format!("{path} fits the database, {}; {sight}", counted(spec.types.len(), "type", "types")))
}

/// As `bulk crawl --check` has it, which makes no request.
async fn crawl_spec(path: &str, doctor: &Doctor) -> Finding {
    let mend = "mend the spec, or the tables that it speaks of; `bulk crawl --help` shows one";
    let line = ["bulk", "crawl", path, "--check"];
    let checked = match Arguments::try_parse_from(line) {
        Ok(Arguments { command: Command::Crawl(mut crawl), common }) => {
            crawl.database = doctor.database.clone();
            // What it says of itself besides is for who runs it.
            crawl::run(&crawl, &common, &Report::new(false, true, false)).await
        }
        Ok(_) => Ok(Exit::Done),
        Err(error) => Err(Failure::usage(error)),
    };
    checked.map_err(|failure| (failure, mend))?;
    Ok(format!("{path} fits the database"))
}

fn disk(folder: &Path) -> Finding {
    let failed = |error: rustix::io::Errno| {
        let what = anyhow::anyhow!("cannot look at {}: {error}", folder.display());
        (Failure::new(Exit::Failed, what), "give a folder that exists with --dir")
    };
    let stat = rustix::fs::statvfs(folder).map_err(failed)?;
    rustix::fs::access(folder, rustix::fs::Access::WRITE_OK).map_err(|error| {
        let what = anyhow::anyhow!("cannot write to {}: {error}", folder.display());
        (Failure::new(Exit::Denied, what), "give a folder of your own with --dir")
    })?;
    Ok(format!("{} free in {}", size(stat.f_bavail.saturating_mul(stat.f_frsize)), folder.display()))
}

/// What the system lets a process have.
fn limits() -> Finding {
    let files = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    if files.is_some_and(|files| files < OPEN_FILES) {
        let what = anyhow::anyhow!("the process may have {} open", counted(files.unwrap_or_default(), "file", "files"));
        return Err((Failure::new(Exit::Failed, what), "ulimit -n 4096, or LimitNOFILE=4096 of its service"));
    }
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let files = files.map_or_else(|| "any number of".to_owned(), |files| files.to_string());
    Ok(format!("{}, {files} open files", counted(cores, "processor", "processors")))
}
