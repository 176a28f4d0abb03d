use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use crate::redaction::redacted_text;

/// The knobs of an [`HttpClient`](crate::HttpClient).
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct HttpOptions {
    /// Files with certificates in PEM form that are trusted as roots, beside those of the system. Default none.
    ///
    /// On Linux and the BSDs the system's roots are what the `rustls-native-certs` crate finds: the files in
    /// `SSL_CERT_FILE` and `SSL_CERT_DIR` where one of them is set, and these alone, as for OpenSSL. On macOS and Windows
    /// the system's own verifier judges, and nobody reads these variables: a program that wants to honour them there
    /// puts the file here.
    pub root_certificates: Vec<PathBuf>,
    /// Which way requests go. Default [`Proxy::System`].
    pub proxy: Proxy,
    /// The limit for opening a connection, TLS included. Default 10 s.
    pub connect_timeout: Duration,
    /// The limit for a wait for bytes, of the answer's head or its body. There is none for a body as a whole. Default
    /// 30 s.
    pub read_timeout: Duration,
}

impl Default for HttpOptions {
    fn default() -> Self {
        Self {
            root_certificates: Vec::new(),
            proxy: Proxy::System,
            connect_timeout: Duration::from_secs(10),
            read_timeout: Duration::from_secs(30),
        }
    }
}

/// Which way the requests of an [`HttpClient`](crate::HttpClient) go. `Debug` shows no password.
#[derive(Clone, Default)]
#[non_exhaustive]
pub enum Proxy {
    /// As curl and others read it in `HTTP_PROXY`, `HTTPS_PROXY`, `ALL_PROXY` and `NO_PROXY`, in capitals or not; on
    /// macOS and Windows, where none of them is set, as the system is set up. Read once, when the client is made. In
    /// `NO_PROXY`, `*` means every name, but no address: those want a block such as `0.0.0.0/0`.
    #[default]
    System,
    /// Straight to the server.
    Direct,
    /// All of them through the proxy with this `http` or `https` URL; a user and a password in it are sent to the proxy.
    Url(String),
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::System => f.write_str("System"),
            Self::Direct => f.write_str("Direct"),
            Self::Url(url) => f.debug_tuple("Url").field(&redacted_text(url)).finish(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proxy_shows_no_password() {
        for (url, shown) in [("http://user:secret@proxy:3128", "http://proxy:3128"), ("user:secret@proxy", "proxy")] {
            assert_eq!(format!("{:?}", Proxy::Url(url.to_owned())), format!("Url({shown:?})"));
        }
    }
}
