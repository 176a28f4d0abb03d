use std::{panic, path::Path, process::Command, thread, time::Duration};

use tokio_postgres::{Config, NoTls, SimpleQueryMessage};

use super::{Error, account, binaries, connection_url};

/// How long a statement of this module may take, the connection included.
const TIMEOUT: Duration = Duration::from_secs(60);

/// Runs one statement over a connection of its own, and gives the first column of the first row. `doing` names the
/// statement in errors.
///
/// It runs in a thread of its own, because a caller may be inside an async runtime, which cannot hold another.
pub(super) fn execute(url: &str, sql: &str, doing: &str) -> Result<Option<String>, Error> {
    let refused = |source| Error::Query { doing: doing.to_owned(), source };
    let config: Config = url.parse().map_err(refused)?;
    let run = || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|source| Error::Runtime { source })?;
        let session = async {
            let (client, connection) = config.connect(NoTls).await?;
            let connection = tokio::spawn(connection);
            let messages = client.simple_query(sql).await;
            drop(client);
            let _ = connection.await;
            messages
        };
        let messages = runtime
            .block_on(async { tokio::time::timeout(TIMEOUT, session).await })
            .map_err(|_| Error::QueryTimeout { doing: doing.to_owned(), seconds: TIMEOUT.as_secs() })?
            .map_err(refused)?;
        Ok(messages.into_iter().find_map(|message| match message {
            SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
            _ => None,
        }))
    };
    thread::scope(|scope| scope.spawn(run).join()).unwrap_or_else(|payload| panic::resume_unwind(payload))
}

/// Runs `psql -XqAt`, with a stop at the first error.
pub(super) fn psql(bin_dir: Option<&Path>, url: &str, sql: &str) -> Result<String, Error> {
    let program = binaries::find_psql(bin_dir)?;
    let mut command = Command::new(&program);
    account::neutral(&mut command);
    command
        .args(["-XqAtw", "-v", "ON_ERROR_STOP=1", "-c", sql, "-d"])
        .arg(connection_url::without_password(url))
        .env("PGCLIENTENCODING", "UTF8");
    if let Some(password) = url.parse::<Config>().ok().as_ref().and_then(Config::get_password) {
        command.env("PGPASSWORD", String::from_utf8_lossy(password).as_ref());
    }
    let output = command.output().map_err(|source| Error::Run { program, account: None, source })?;
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    } else {
        Err(Error::Psql { message: String::from_utf8_lossy(&output.stderr).trim().to_owned() })
    }
}
