//! How a connection is encrypted, by libpq's `sslmode` and its certificates (PostgreSQL manual, "SSL Support").

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use rustls_platform_verifier::BuilderVerifierExt;

use crate::Error;

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

/// How to encrypt a connection.
#[derive(Debug)]
pub(crate) struct Tls {
    pub(crate) mode: Mode,
    pub(crate) config: ClientConfig,
}

fn unusable(what: impl Into<String>) -> Error {
    Error::Url { what: what.into() }
}

impl Tls {
    /// Takes out of the parameters those that concern encryption. `home` is where certificates are that they do not name.
    pub(crate) fn take(parameters: &mut BTreeMap<String, String>, home: Option<&Path>) -> Result<Self, Error> {
        let mut take = |key: &str| parameters.remove(key).filter(|value| !value.is_empty());
        let mode = match take("sslmode").as_deref() {
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
        let own = |name: &str| home.map(|home| home.join(".postgresql").join(name)).filter(|path| path.is_file());
        let roots = match take("sslrootcert") {
            Some(system) if system == "system" => Roots::System,
            Some(path) => Roots::File(path.into()),
            None => own("root.crt").map_or(Roots::None, Roots::File),
        };
        let certificate = take("sslcert").map(PathBuf::from).or_else(|| own("postgresql.crt"));
        let key = take("sslkey").map(PathBuf::from).or_else(|| own("postgresql.key"));
        if mode == Mode::Disable {
            // Nothing of it matters then, and files that cannot be read do not either.
            return Ok(Self { mode, config: config(mode, Roots::None, None)? });
        }
        if roots == Roots::System && mode < Mode::VerifyFull {
            return Err(unusable("with sslrootcert=system its sslmode has to be verify-full"));
        }
        Ok(Self { mode, config: config(mode, roots, certificate.zip(key))? })
    }
}

/// By whom a server's certificate has to be signed.
#[derive(Debug, PartialEq, Eq)]
enum Roots {
    None,
    System,
    File(PathBuf),
}

fn config(mode: Mode, roots: Roots, own: Option<(PathBuf, PathBuf)>) -> Result<ClientConfig, Error> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let failed = |error: rustls::Error| unusable(format!("TLS cannot be used: {error}"));
    let builder = ClientConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions();
    let builder = builder.map_err(failed)?;
    let builder = match roots {
        Roots::System => builder.with_platform_verifier().map_err(failed)?,
        Roots::None if mode >= Mode::VerifyCa => {
            return Err(unusable(
                "its sslmode wants to know who has signed the server's certificate: name that in sslrootcert=FILE, or \
                 take sslrootcert=system",
            ));
        }
        roots => {
            let verifier = match roots {
                Roots::File(path) => Some(verifier(&path, &provider)?),
                _ => None,
            };
            let verifier = Verifier { verifier, checks_name: mode == Mode::VerifyFull, provider };
            builder.dangerous().with_custom_certificate_verifier(Arc::new(verifier))
        }
    };
    let Some((certificate, key)) = own else { return Ok(builder.with_no_client_auth()) };
    let chain = certificates(&certificate)?;
    let unreadable = |error: rustls::pki_types::pem::Error| unusable(format!("sslkey {}: {error}", key.display()));
    let key_of = PrivateKeyDer::from_pem_file(&key).map_err(unreadable)?;
    builder.with_client_auth_cert(chain, key_of).map_err(failed)
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    let unreadable =
        |error: rustls::pki_types::pem::Error| unusable(format!("certificate {}: {error}", path.display()));
    CertificateDer::pem_file_iter(path).and_then(Iterator::collect).map_err(unreadable)
}

fn verifier(path: &Path, provider: &Arc<CryptoProvider>) -> Result<Arc<WebPkiServerVerifier>, Error> {
    let failed = |error: &dyn std::fmt::Display| unusable(format!("sslrootcert {}: {error}", path.display()));
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path)? {
        roots.add(certificate).map_err(|error| failed(&error))?;
    }
    let builder = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider.clone());
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
