//! Who works with the demo's database: a role that owns it and nothing else, known by a password that is in a file alone.

use std::fs::OpenOptions;
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use bulk_pg::{Ident, Session};
use bulk_testkit::postgres::{Database, Server};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use url::Url;

use crate::exit::{Exit, Failure};

const ROLE: &str = "demo";

/// What stands unescaped in the URL, so that it can be read: `unreserved` of RFC 3986, section 2.3, and `/`.
const PATH: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~').remove(b'/');

/// A password that nobody guesses: 128 bits of the system's.
pub(super) fn password() -> Result<String, Failure> {
    let mut random = [0; 16];
    let read = std::fs::File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut random));
    read.map_err(|error| Failure::new(Exit::Failed, anyhow::anyhow!("cannot read /dev/urandom: {error}")))?;
    Ok(random.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Makes the role that owns `database`, and gives the URL by which it works with it. The password stands in a file in
/// `folder` that only this user can read, and not in the URL: that is pasted into commands, whose arguments all users of
/// the machine see.
pub(super) async fn make(server: &Server, database: &Database, folder: &Path) -> Result<String, Failure> {
    let failed = |error: &dyn std::fmt::Display| Failure::new(Exit::Failed, anyhow::anyhow!("{error}"));
    let password = password()?;
    let name = Ident::new(database.name()).map_err(|error| failed(&error))?;
    let session = Session::connect(server.url()).await?;
    let sql = format!(
        "CREATE ROLE {ROLE} LOGIN PASSWORD '{password}';
         REVOKE ALL ON DATABASE {name} FROM PUBLIC; ALTER DATABASE {name} OWNER TO {ROLE}"
    );
    // The server is this demo's alone, and so are its log and its list of roles.
    session.client().batch_execute(&sql).await.map_err(|error| failed(&error))?;
    let path = folder.join("pgpass");
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
    let line = format!("127.0.0.1:*:{}:{ROLE}:{password}\n", database.name());
    file.and_then(|mut file| file.write_all(line.as_bytes())).map_err(|error| failed(&error))?;
    let mut url: Url = database.url().parse().map_err(|error| failed(&error))?;
    let named = url.set_username(ROLE).and_then(|()| url.set_password(None));
    named.map_err(|()| failed(&"the URL of the demo's database names no host"))?;
    url.set_query(Some(&format!("passfile={}", utf8_percent_encode(&path.to_string_lossy(), PATH))));
    Ok(url.into())
}
