//! Certificates and proxies, with real ones on loopback: as options, and as the usual variables.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};

use bulk_core::{Error, Get, HttpClient, HttpOptions, HttpSource, Proxy, Source};
use bulk_testkit::tls::{Authority, Front};
use futures::TryStreamExt;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWrite, AsyncWriteExt, BufReader, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};

/// Where a child of this program finds what to fetch. The environment is set for it, so that it is no other test's.
const FETCH: &str = "BULK_TEST_FETCH";

fn authority(name: &str) -> Authority {
    Authority::new(name).unwrap()
}

/// Serves `hello` over TLS, as somebody that the authority vouches for.
async fn serve(authority: &Authority) -> Front {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            hello(listener.accept().await.unwrap().0).await;
        }
    });
    Front::start(&authority.certify(&["127.0.0.1", "bulk.test"]).unwrap(), address).unwrap()
}

async fn hello(stream: impl AsyncRead + AsyncWrite + Unpin) -> String {
    let mut stream = BufReader::new(stream);
    let head = head(&mut stream).await;
    stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello").await.unwrap();
    stream.shutdown().await.unwrap();
    head
}

async fn head(stream: &mut (impl AsyncBufReadExt + Unpin)) -> String {
    let mut head = String::new();
    while stream.read_line(&mut head).await.unwrap() > 2 {}
    head
}

/// A proxy that tunnels every CONNECT to `127.0.0.1` at the port asked for, and answers any other request itself. Gives
/// its URL and the heads that it got.
async fn proxy() -> (String, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let heads = Arc::new(Mutex::new(Vec::new()));
    let taken = heads.clone();
    tokio::spawn(async move {
        loop {
            let mut stream = BufReader::new(listener.accept().await.unwrap().0);
            let first = stream.fill_buf().await.unwrap().starts_with(b"CONNECT ");
            if !first {
                let head = hello(stream).await;
                taken.lock().unwrap().push(head);
                continue;
            }
            let head = head(&mut stream).await;
            let port = head.split(' ').nth(1).and_then(|target| target.rsplit(':').next()).unwrap().parse().unwrap();
            taken.lock().unwrap().push(head);
            let mut server = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
            stream.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").await.unwrap();
            tokio::spawn(async move { copy_bidirectional(&mut stream, &mut server).await });
        }
    });
    (address, heads)
}

async fn fetch(base: &str, options: &HttpOptions) -> Result<String, Error> {
    let body = HttpSource::with_client(base, HttpClient::with_options(options)?)?.get(&Get::new("a")).await?;
    Ok(String::from_utf8(body.bytes.try_collect::<Vec<_>>().await?.concat()).unwrap())
}

fn direct(root_certificates: Vec<PathBuf>) -> HttpOptions {
    let mut options = HttpOptions::default();
    options.proxy = Proxy::Direct;
    options.root_certificates = root_certificates;
    options
}

/// What a child of this program fetches with the default options and these variables: the content, or the error.
async fn fetch_with(base: &str, variables: &[(&str, &str)]) -> String {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "the_usual_variables_are_honoured", "--nocapture"]);
    for name in ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"] {
        command.env_remove(name).env_remove(name.to_lowercase());
    }
    command.env_remove("SSL_CERT_FILE").env_remove("SSL_CERT_DIR").env_remove("REQUEST_METHOD");
    let result = tempfile::NamedTempFile::new().unwrap();
    command.env(FETCH, format!("{}\n{base}", result.path().display())).envs(variables.iter().copied());
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    fs::read_to_string(result.path()).unwrap()
}

#[tokio::test]
async fn a_server_is_trusted_if_its_root_is() {
    let (ours, other) = (authority("ours"), authority("other"));
    let front = serve(&ours).await;
    let base = format!("https://{}/", front.address());
    assert_eq!(fetch(&base, &direct(vec![ours.file()])).await.unwrap(), "hello");
    assert_eq!(fetch(&base, &direct(vec![other.file(), ours.file()])).await.unwrap(), "hello");
    for roots in [vec![], vec![other.file()]] {
        let error = fetch(&base, &direct(roots)).await.unwrap_err();
        let Error::Transport { what: "cannot connect", source, .. } = error else { panic!("{error:?}") };
        assert_eq!(source.to_string(), "invalid peer certificate: UnknownIssuer");
    }
}

#[test]
fn files_without_certificates_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        fs::write(folder.path().join(name), text).unwrap();
        folder.path().join(name)
    };
    let begin = "-----BEGIN CERTIFICATE-----\n";
    let unusable = [
        folder.path().join("missing"),
        file("empty", ""),
        file("torn", &format!("{begin}AAAA")),
        file("bad", &format!("{begin}????\n-----END CERTIFICATE-----\n")),
    ];
    for path in unusable {
        let error = HttpClient::with_options(&direct(vec![path.clone()])).unwrap_err();
        assert_eq!(error.to_string(), format!("cannot read certificates from {}", path.display()));
    }
}

#[tokio::test]
async fn requests_go_through_the_proxy_given() {
    let ours = authority("ours");
    let front = serve(&ours).await;
    let port = front.address().port();
    let (address, heads) = proxy().await;
    let mut options = direct(vec![ours.file()]);
    options.proxy = Proxy::Url(format!("http://user:word@{address}"));
    // Only the proxy knows the way to that name.
    assert_eq!(fetch(&format!("https://bulk.test:{port}/"), &options).await.unwrap(), "hello");
    assert_eq!(fetch("http://bulk.test/b", &options).await.unwrap(), "hello");
    let heads = heads.lock().unwrap().clone();
    assert_eq!(heads.len(), 2);
    assert!(heads[0].starts_with(&format!("CONNECT bulk.test:{port} HTTP/1.1\r\n")), "{heads:?}");
    assert!(heads[1].starts_with("GET http://bulk.test/b/a HTTP/1.1\r\n"), "{heads:?}");
    for head in heads {
        assert!(head.to_lowercase().contains("\r\nproxy-authorization: basic "), "{head}");
    }

    for url in ["ftp://user:word@host", "nonsense"] {
        options.proxy = Proxy::Url(url.to_owned());
        let error = HttpClient::with_options(&options).unwrap_err();
        assert!(matches!(error, Error::Url { .. }) && !error.to_string().contains("word"), "{error}");
    }
}

#[tokio::test]
async fn the_usual_variables_are_honoured() {
    if let Ok(job) = std::env::var(FETCH) {
        let (result, base) = job.split_once('\n').unwrap();
        let content = fetch(base, &HttpOptions::default()).await;
        let text = content.unwrap_or_else(|error| format!("{error}: {}", std::error::Error::source(&error).unwrap()));
        return fs::write(result, text).unwrap();
    }
    let ours = authority("ours");
    let front = serve(&ours).await;
    let port = front.address().port();
    let base = format!("https://127.0.0.1:{port}/");
    let unknown = format!("{base}a: cannot connect: invalid peer certificate: UnknownIssuer");
    let (file, folder) = (ours.file(), ours.folder());
    let text = |path: &Path| path.to_str().unwrap().to_owned();
    assert_eq!(fetch_with(&base, &[]).await, unknown);
    if cfg!(all(unix, not(target_vendor = "apple"))) {
        assert_eq!(fetch_with(&base, &[("SSL_CERT_FILE", &text(&file))]).await, "hello");
        assert_eq!(fetch_with(&base, &[("SSL_CERT_DIR", &text(folder))]).await, "hello");
    }

    let (address, heads) = proxy().await;
    let proxy = format!("http://{address}");
    let lines =
        || heads.lock().unwrap().drain(..).map(|head| head.lines().next().unwrap().to_owned()).collect::<Vec<_>>();
    assert_eq!(fetch_with("http://bulk.test/", &[("HTTP_PROXY", &proxy)]).await, "hello");
    assert_eq!(fetch_with("http://bulk.test/", &[("http_proxy", &proxy), ("NO_PROXY", "elsewhere")]).await, "hello");
    assert_eq!(lines(), ["GET http://bulk.test/a HTTP/1.1"; 2]);
    assert_eq!(fetch_with(&base, &[("HTTPS_PROXY", &proxy)]).await, unknown);
    assert_eq!(lines(), [format!("CONNECT 127.0.0.1:{port} HTTP/1.1")]);
    for (host, excepted) in [("127.0.0.1", "127.0.0.1"), ("127.0.0.1", "127.0.0.0/8"), ("localhost", "localhost, *")] {
        let base = base.replace("127.0.0.1", host);
        let unknown = unknown.replace("127.0.0.1", host);
        assert_eq!(fetch_with(&base, &[("HTTPS_PROXY", &proxy), ("NO_PROXY", excepted)]).await, unknown);
    }
    assert_eq!(fetch_with(&base, &[("HTTP_PROXY", &proxy)]).await, unknown);
    assert_eq!(lines(), [""; 0]);
}
