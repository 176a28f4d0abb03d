//! How a connection is encrypted, by libpq's `sslmode` and its certificates (PostgreSQL manual, "SSL Support").

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use rustls_platform_verifier::BuilderVerifierExt;

use crate::Error;
use crate::conninfo::is_private;

/// `sslmode`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Mode {
    Disable,
    Allow,
    Prefer,
    Require,
    VerifyCa,
    VerifyFull,
}

/// How to encrypt connections.
#[derive(Debug)]
pub(crate) struct Tls {
    pub(crate) mode: Mode,
    roots: Roots,
    /// The client's certificate and key.
    own: Option<(PathBuf, PathBuf)>,
    /// Which certificates are revoked.
    revoked: Option<PathBuf>,
}

impl Tls {
    /// Takes out of the parameters those that concern encryption. `home` is where certificates are that they do not name.
    /// No file is read yet.
    pub(crate) fn take(parameters: &mut BTreeMap<String, String>, home: Option<&Path>) -> Result<Self, Error> {
        let own = |name: &str| home.map(|home| home.join(".postgresql").join(name)).filter(|path| path.is_file());
        let roots = match parameters.remove("sslrootcert") {
            Some(system) if system == "system" => Roots::System,
            Some(path) => Roots::File(path.into()),
            None => own("root.crt").map_or(Roots::None, Roots::File),
        };
        let mode = match parameters.remove("sslmode").as_deref() {
            None if roots == Roots::System => Mode::VerifyFull,
            Some("disable") => Mode::Disable,
            Some("allow") => Mode::Allow,
            None | Some("prefer") => Mode::Prefer,
            Some("require") => Mode::Require,
            Some("verify-ca") => Mode::VerifyCa,
            Some("verify-full") => Mode::VerifyFull,
            Some(_) => {
                return Err(unusable(
                    "its sslmode is none of disable, allow, prefer, require, verify-ca and verify-full",
                ));
            }
        };
        if roots == Roots::System && mode != Mode::VerifyFull {
            return Err(unusable("with sslrootcert=system its sslmode has to be verify-full"));
        }
        let revoked = parameters.remove("sslcrl").map(PathBuf::from).or_else(|| own("root.crl"));
        let own = match (parameters.remove("sslcert"), parameters.remove("sslkey")) {
            (Some(certificate), Some(key)) => Some((certificate.into(), key.into())),
            (Some(certificate), None) => match own("postgresql.key") {
                Some(key) => Some((certificate.into(), key)),
                None => return Err(unusable("it has an sslcert without the sslkey that belongs to it")),
            },
            (None, key) => own("postgresql.crt").zip(key.map(PathBuf::from).or_else(|| own("postgresql.key"))),
        };
        Ok(Self { mode, roots, own, revoked })
    }

    /// What encrypts, with the certificates of the files.
    pub(crate) fn config(&self) -> Result<ClientConfig, Error> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let failed = |error: rustls::Error| unusable(format!("TLS cannot be used: {error}"));
        let builder = ClientConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions();
        let builder = builder.map_err(failed)?;
        let builder = match &self.roots {
            Roots::System => builder.with_platform_verifier().map_err(failed)?,
            Roots::None if self.mode >= Mode::VerifyCa => {
                return Err(unusable(
                    "its sslmode wants to know who has signed the server's certificate: name that in sslrootcert=FILE, \
                     or take sslrootcert=system",
                ));
            }
            roots => {
                let verifier = match roots {
                    Roots::File(path) => Some(verifier(path, self.revoked.as_deref(), &provider)?),
                    _ => None,
                };
                let verifier = Verifier { verifier, checks_name: self.mode == Mode::VerifyFull, provider };
                builder.dangerous().with_custom_certificate_verifier(Arc::new(verifier))
            }
        };
        let mut config = match &self.own {
            None => builder.with_no_client_auth(),
            Some((certificate, key)) => {
                let chain = certificates("sslcert", certificate)?;
                if !std::fs::metadata(key).is_ok_and(|metadata| is_private(&metadata)) {
                    let key = key.display();
                    return Err(unusable(format!("sslkey {key} is to be a file that nobody but you can read")));
                }
                let of_key = PrivateKeyDer::from_pem_file(key).map_err(|error| unreadable("sslkey", key, &error))?;
                builder.with_client_auth_cert(chain, of_key).map_err(failed)?
            }
        };
        // PostgreSQL 17 asks for it where the connection begins with TLS.
        config.alpn_protocols = vec![b"postgresql".to_vec()];
        Ok(config)
    }
}

fn unusable(what: impl Into<String>) -> Error {
    Error::Url { what: what.into() }
}

/// By whom a server's certificate has to be signed.
#[derive(Debug, PartialEq, Eq)]
enum Roots {
    None,
    System,
    File(PathBuf),
}

fn certificates(keyword: &str, path: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect);
    read.map_err(|error| unreadable(keyword, path, &error))
}

/// Says nothing of what is in the file, which may be a key.
fn unreadable(keyword: &str, path: &Path, error: &pem::Error) -> Error {
    let why = match error {
        pem::Error::Io(error) => error.to_string(),
        pem::Error::NoItemsFound => "it has none".to_owned(),
        _ => "it is not what it should be, in PEM".to_owned(),
    };
    unusable(format!("{keyword} {}: {why}", path.display()))
}

fn verifier(
    path: &Path,
    revoked: Option<&Path>,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<WebPkiServerVerifier>, Error> {
    let failed = |error: &dyn std::fmt::Display| unusable(format!("sslrootcert {}: {error}", path.display()));
    let mut roots = RootCertStore::empty();
    for certificate in certificates("sslrootcert", path)? {
        roots.add(certificate).map_err(|error| failed(&error))?;
    }
    let mut builder = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider.clone());
    if let Some(path) = revoked {
        let lists = CertificateRevocationListDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
        let lists = lists.map_err(|error| unreadable("sslcrl", path, &error))?;
        // As OpenSSL does where there is no list of an authority's.
        builder = builder.with_crls(lists).allow_unknown_revocation_status();
    }
    builder.build().map_err(|error| failed(&error))
}

/// Checks of a server's certificate what the mode asks for. That the server has its key is always checked.
#[derive(Debug)]
struct Verifier {
    /// `None` takes any.
    verifier: Option<Arc<WebPkiServerVerifier>>,
    checks_name: bool,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let Some(verifier) = &self.verifier else { return Ok(ServerCertVerified::assertion()) };
        match verifier.verify_server_cert(certificate, intermediates, name, ocsp, now) {
            // The name is looked at when all else is right.
            Err(rustls::Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) if !self.checks_name => Ok(ServerCertVerified::assertion()),
            verified => verified,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
