use bulk_core::RetryPolicy;
use futures::TryStreamExt;
use serde_json::json;

use crate::arguments::{DatabaseArguments, Doctor};
use crate::dataset::Dataset;
use crate::exit::{Exit, Failure};
use crate::report::{Report, size};
use crate::source::Place;

/// Oldest server that loads are tested with.
const OLDEST_SERVER: i32 = 13;

pub(crate) async fn run(doctor: &Doctor, report: &Report) -> Result<Exit, Failure> {
    let dataset = Dataset::find(&doctor.dataset)?;
    let mut exit = Exit::Done;
    let mut check = |name: &str, result: Result<String, (Failure, &str)>| match result {
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
    match doctor.database.target.given() {
        Some(_) => check("database", database(&doctor.database).await),
        None => report.note("      database: not checked; give --db URL, or PGDATABASE and its like"),
    }
    check("bucket", bucket(&dataset, doctor, report).await);
    check("disk", disk(doctor).await);
    Ok(exit)
}

async fn database(arguments: &DatabaseArguments) -> Result<String, (Failure, &'static str)> {
    let session = arguments
        .connect()
        .await
        .map_err(|failure| (failure, "check host, port, user and password in --db, and that the server runs"))?;
    let sql = "SELECT current_setting('server_version'), current_setting('server_version_num')::int,
                      has_database_privilege(current_database(), 'CREATE')";
    let failed = |error| (Failure::new(Exit::Failed, error), "see the server's log");
    let row = session.client().query_one(sql, &[]).await.map_err(failed)?;
    let (version, number): (String, i32) = (row.get(0), row.get(1));
    if number / 10_000 < OLDEST_SERVER {
        let what = anyhow::anyhow!("the server is PostgreSQL {version}");
        return Err((Failure::new(Exit::Failed, what), "use PostgreSQL 13 or newer"));
    }
    if !row.get::<_, bool>(2) {
        let what = anyhow::anyhow!("the role may not create schemas in {}", session.target());
        return Err((Failure::new(Exit::Denied, what), "GRANT CREATE ON DATABASE … TO the role"));
    }
    let compression = match session.uses_lz4() {
        true => "by lz4",
        false => "as the server is set up, because it was built without lz4 or --no-lz4 says so",
    };
    Ok(format!("{}, PostgreSQL {version}, wide columns compressed {compression}", session.target()))
}

async fn bucket(dataset: &Dataset, doctor: &Doctor, report: &Report) -> Result<String, (Failure, &'static str)> {
    let is_folder = dataset.source.starts_with("file://");
    let mend = match is_folder {
        true => "make the folder, or name another one as the data set's source",
        false => "check the network, --endpoint and --region, and the proxy variables",
    };
    let arguments = dataset.bucket_arguments(&doctor.bucket);
    // Who asks what is wrong wants to hear it, rather than that it passes.
    let mut retry = RetryPolicy::default();
    retry.attempts = 2;
    let place = Place::open_with(&dataset.source, &arguments, retry, report).map_err(|failure| (failure, mend))?;
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

async fn disk(doctor: &Doctor) -> Result<String, (Failure, &'static str)> {
    let failed = |error: rustix::io::Errno| {
        let what = anyhow::anyhow!("cannot look at {}: {error}", doctor.dir.display());
        (Failure::new(Exit::Failed, what), "give a folder that exists with --dir")
    };
    let stat = rustix::fs::statvfs(&doctor.dir).map_err(failed)?;
    Ok(format!("{} free in {}", size(stat.f_bavail.saturating_mul(stat.f_frsize)), doctor.dir.display()))
}
