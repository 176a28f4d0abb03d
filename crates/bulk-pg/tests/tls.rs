//! Encrypted sessions with a real server: what each `sslmode` asks of its certificate.

use std::time::Duration;

use bulk_pg::Session;
use bulk_testkit::postgres::{Options, Server};
use bulk_testkit::tls::{Authority, Certified};

/// Has the server write a file into its own folder, as its own account, and read its settings again.
fn give(server: &Server, Certified { certificate, key, .. }: &Certified) {
    let write = |name: &str, text: &str| {
        format!(
            "COPY (SELECT unnest(string_to_array($${}$$, E'\\n'))) TO PROGRAM 'umask 077; cat > {name}';",
            text.trim_end()
        )
    };
    for sql in [
        write("server.crt", certificate),
        write("server.key", key),
        "ALTER SYSTEM SET ssl = on;".to_owned(),
        "SELECT pg_reload_conf();".to_owned(),
    ] {
        server.psql(server.url(), &sql).unwrap();
    }
}

/// Whether the session of this URL is encrypted, or why there is none.
async fn encrypted(url: &str) -> Result<bool, String> {
    let chain = |error: &dyn std::error::Error| {
        let mut text = error.to_string();
        let mut cause = error.source();
        while let Some(error) = cause {
            text = format!("{text}: {error}");
            cause = error.source();
        }
        text
    };
    let session = Session::connect(url).await.map_err(|error| chain(&error))?;
    let row = session.client().query_one("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()", &[]).await;
    Ok(row.unwrap().get(0))
}

/// Waits until sessions of this URL are encrypted.
async fn until(url: &str) {
    let waiting = async {
        while encrypted(url).await != Ok(true) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), waiting).await.unwrap();
}

#[tokio::test]
async fn the_servers_are_tried_in_their_order_until_one_answers() {
    let server = bulk_testkit::postgres::shared().unwrap();
    let (_, behind) = server.url().split_once("://").unwrap();
    let (account, place) = behind.split_once('@').unwrap();
    // Nothing listens there.
    let url = format!("postgresql://{account}@127.0.0.1:1,{place}");
    let session = Session::connect(&url).await.unwrap();
    assert!(!session.target().contains("127.0.0.1:1\0"), "{}", session.target());
    let error = Session::connect(&format!("postgresql://{account}@127.0.0.1:1,127.0.0.1:2/x")).await.err().unwrap();
    assert!(error.to_string().contains("127.0.0.1:1"), "{error}");
}

#[tokio::test]
async fn a_session_is_encrypted_as_its_mode_says() {
    let server = Server::start(&Options::default()).unwrap();
    if !server.is_embedded() {
        // The settings of somebody's own server are not ours to change.
        assert!(std::env::var_os("CI").is_none(), "DATABASE_URL is set");
        return;
    }
    let url =
        |options: &str| format!("{}{}{options}", server.url(), if server.url().contains('?') { '&' } else { '?' });
    assert_eq!(encrypted(&url("sslmode=prefer")).await, Ok(false));
    let error = encrypted(&url("sslmode=require")).await.unwrap_err();
    assert!(error.contains("server does not support TLS"), "{error}");

    let (one, other) = (Authority::new("one").unwrap(), Authority::new("other").unwrap());
    let certified = one.certify(&["127.0.0.1"]).unwrap();
    give(&server, &certified);
    let (ca, other_ca) = (one.file(), other.file());
    let (ca, other_ca) = (ca.display(), other_ca.display());
    let folder = tempfile::tempdir().unwrap();
    // A key whose line ends are lost is named, and not shown.
    let flat = folder.path().join("flat.key");
    std::fs::write(&flat, one.certify(&["me"]).unwrap().key.replace('\n', " ")).unwrap();
    std::fs::set_permissions(&flat, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    // A list on which the server's certificate is, if it is of this authority.
    let revoked = |name: &str, authority: &Authority| {
        let path = folder.path().join(name);
        std::fs::write(&path, authority.revoke(&certified).unwrap()).unwrap();
        path.display().to_string()
    };
    // The server reads its settings when it comes to it.
    until(&url("sslmode=prefer")).await;
    for (options, expected) in [
        (String::new(), true),
        ("sslmode=disable".to_owned(), false),
        ("sslmode=allow".to_owned(), false),
        ("sslmode=require".to_owned(), true),
        (format!("sslmode=verify-ca&sslrootcert={ca}"), true),
        (format!("sslmode=verify-full&sslrootcert={ca}"), true),
        (format!("sslmode=verify-full&sslrootcert={ca}&hostaddr=127.0.0.1"), true),
        // There is no list of that authority's in it.
        (format!("sslmode=verify-full&sslrootcert={ca}&sslcrl={}", revoked("other.crl", &other)), true),
    ] {
        assert_eq!(encrypted(&url(&options)).await, Ok(expected), "{options}");
    }
    for (options, says) in [
        // As libpq does it: who names a root certificate wants it used.
        (format!("sslmode=require&sslrootcert={other_ca}"), "UnknownIssuer"),
        (format!("sslmode=verify-ca&sslrootcert={other_ca}"), "UnknownIssuer"),
        ("sslmode=verify-full&sslrootcert=system".to_owned(), "invalid peer certificate"),
        ("sslmode=verify-full&sslrootcert=/absent.crt".to_owned(), "/absent.crt"),
        ("sslmode=require&sslrootcert=system".to_owned(), "has to be verify-full"),
        ("sslrootcert=system".to_owned(), "invalid peer certificate"),
        ("sslmode=disable&sslrootcert=system".to_owned(), "has to be verify-full"),
        ("sslmode=yes".to_owned(), "its sslmode is none of"),
        ("sslmode=".to_owned(), "its sslmode is none of"),
        ("gssencmode=require".to_owned(), "what its option gssencmode asks for, bulk does not do"),
        (format!("sslmode=require&sslcert={ca}"), "without the sslkey"),
        (format!("sslmode=require&sslcert={ca}&sslkey={ca}"), "that nobody but you can read"),
        (format!("sslmode=require&sslcert={ca}&sslkey={}", flat.display()), "it is not what it should be, in PEM"),
        (format!("sslmode=verify-full&sslrootcert={ca}&sslcrl={}", revoked("one.crl", &one)), "Revoked"),
    ] {
        let error = encrypted(&url(&options)).await.unwrap_err();
        assert!(error.contains(says), "{options}: {error}");
    }

    // One that vouches for another host.
    give(&server, &other.certify(&["db.example.org"]).unwrap());
    until(&url(&format!("sslmode=verify-ca&sslrootcert={other_ca}"))).await;
    let error = encrypted(&url(&format!("sslmode=verify-full&sslrootcert={other_ca}"))).await.unwrap_err();
    assert!(error.contains("not valid for name"), "{error}");
}
