//! Encrypted sessions with a real server: what each `sslmode` asks of its certificate.

use std::fs;

use bulk_pg::Session;
use bulk_testkit::postgres::{Options, Server};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};

/// A certificate authority, and a certificate of it for a server of this name: (CA, certificate, key).
fn certificates(ca: &str, server: &str) -> (String, String, String) {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, ca);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    let authority = params.self_signed(&key).unwrap();
    let server_key = KeyPair::generate().unwrap();
    let server = CertificateParams::new([server.to_owned()]).unwrap();
    let certificate = server.signed_by(&server_key, &Issuer::new(params, key)).unwrap();
    (authority.pem(), certificate.pem(), server_key.serialize_pem())
}

/// Has the server write a file into its own folder, as its own account, and read its settings again.
fn give(server: &Server, certificate: &str, key: &str) {
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

    let (ca, certificate, key) = certificates("one", "127.0.0.1");
    let (other, elsewhere, elsewhere_key) = certificates("other", "db.example.org");
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str, text: &str| {
        let path = folder.path().join(name);
        fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let (ca, other) = (path("ca.crt", &ca), path("other.crt", &other));
    give(&server, &certificate, &key);
    // The server reads its settings when it comes to it.
    while encrypted(&url("sslmode=prefer")).await != Ok(true) {
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    for (options, expected) in [
        (String::new(), true),
        ("sslmode=disable".to_owned(), false),
        ("sslmode=allow".to_owned(), false),
        ("sslmode=require".to_owned(), true),
        (format!("sslmode=verify-ca&sslrootcert={ca}"), true),
        (format!("sslmode=verify-full&sslrootcert={ca}"), true),
    ] {
        assert_eq!(encrypted(&url(&options)).await, Ok(expected), "{options}");
    }
    for (options, says) in [
        // As libpq does it: who names a root certificate wants it used.
        (format!("sslmode=require&sslrootcert={other}"), "UnknownIssuer"),
        (format!("sslmode=verify-ca&sslrootcert={other}"), "UnknownIssuer"),
        ("sslmode=verify-full&sslrootcert=system".to_owned(), "invalid peer certificate"),
        ("sslmode=verify-full&sslrootcert=/absent.crt".to_owned(), "/absent.crt"),
        ("sslmode=require&sslrootcert=system".to_owned(), "has to be verify-full"),
        ("sslmode=yes".to_owned(), "its sslmode is none of"),
    ] {
        let error = encrypted(&url(&options)).await.unwrap_err();
        assert!(error.contains(says), "{options}: {error}");
    }

    // One that vouches for another host.
    give(&server, &elsewhere, &elsewhere_key);
    while encrypted(&url(&format!("sslmode=verify-ca&sslrootcert={other}"))).await != Ok(true) {
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    let error = encrypted(&url(&format!("sslmode=verify-full&sslrootcert={other}"))).await.unwrap_err();
    assert!(error.contains("not valid for name"), "{error}");
}
