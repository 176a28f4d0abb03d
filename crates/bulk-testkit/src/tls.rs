//! Certificates of an authority of our own, and a front that speaks TLS for a server that does not.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DnType, IsCa, Issuer, KeyIdMethod, KeyPair,
    KeyUsagePurpose, RevokedCertParams, SerialNumber,
};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// A certificate authority. Its own certificate is in a file of a folder that goes with it.
#[derive(Debug)]
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
    folder: tempfile::TempDir,
}

/// A certificate and its private key, in PEM.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Certified {
    /// The certificate.
    pub certificate: String,
    /// The key.
    pub key: String,
    serial: SerialNumber,
}

impl Authority {
    /// An authority of this common name.
    ///
    /// # Errors
    ///
    /// Where keys cannot be made, or the file cannot be written.
    pub fn new(name: &str) -> io::Result<Self> {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().map_err(io::Error::other)?;
        let pem = params.self_signed(&key).map_err(io::Error::other)?.pem();
        let folder = tempfile::tempdir()?;
        std::fs::write(folder.path().join("ca.pem"), &pem)?;
        Ok(Self { issuer: Issuer::new(params, key), pem, folder })
    }

    /// Its certificate, in PEM.
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// The folder that holds its certificate and nothing else.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The file that holds its certificate.
    pub fn file(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    /// A certificate for a server of these names or addresses.
    ///
    /// # Errors
    ///
    /// If one of them is neither.
    pub fn certify(&self, names: &[&str]) -> io::Result<Certified> {
        let key = KeyPair::generate().map_err(io::Error::other)?;
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let params = CertificateParams::new(names).map_err(io::Error::other)?;
        let serial = SerialNumber::from(fastrand::u64(1..).to_be_bytes().to_vec());
        let mut params = params;
        params.serial_number = Some(serial.clone());
        let certificate = params.signed_by(&key, &self.issuer).map_err(io::Error::other)?;
        Ok(Certified { certificate: certificate.pem(), key: key.serialize_pem(), serial })
    }

    /// A list, in PEM, that revokes this certificate, if it is one of this authority.
    ///
    /// # Errors
    ///
    /// Where the list cannot be signed.
    pub fn revoke(&self, certified: &Certified) -> io::Result<String> {
        let now = SystemTime::now();
        let revoked = RevokedCertParams {
            serial_number: certified.serial.clone(),
            revocation_time: now.into(),
            reason_code: None,
            invalidity_date: None,
        };
        let params = CertificateRevocationListParams {
            this_update: now.into(),
            next_update: (now + Duration::from_secs(86_400)).into(),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: vec![revoked],
            key_identifier_method: KeyIdMethod::Sha256,
        };
        params.signed_by(&self.issuer).and_then(|list| list.pem()).map_err(io::Error::other)
    }
}

/// Speaks TLS on a loopback port of its own, and passes what it hears on to a server, with a thread of its own.
///
/// Dropping it closes all connections at once.
#[derive(Debug)]
pub struct Front {
    address: SocketAddr,
    runtime: Option<Runtime>,
}

impl Front {
    /// Stands before the server at this address, as the one that was certified.
    ///
    /// # Errors
    ///
    /// If the certificate cannot be used, or the system has no port or thread for it.
    pub fn start(certified: &Certified, server: SocketAddr) -> io::Result<Self> {
        let certificate = CertificateDer::from_pem_slice(certified.certificate.as_bytes()).map_err(io::Error::other)?;
        let key = PrivateKeyDer::from_pem_slice(certified.key.as_bytes()).map_err(io::Error::other)?;
        // Named, since in a build of the whole workspace another crate brings a second one.
        let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .and_then(|builder| builder.with_no_client_auth().with_single_cert(vec![certificate], key))
            .map_err(io::Error::other)?;
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let listener = {
            let _entered = runtime.enter();
            TcpListener::from_std(listener)?
        };
        runtime.spawn(accept(listener, TlsAcceptor::from(Arc::new(config)), server));
        Ok(Self { address, runtime: Some(runtime) })
    }

    /// Where it listens: `127.0.0.1`, at a port of its own.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Front {
    fn drop(&mut self) {
        // It may be dropped where another runtime is at work, which must not wait.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

async fn accept(listener: TcpListener, acceptor: TlsAcceptor, server: SocketAddr) {
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            // Out of descriptors, most likely: other connections must end first.
            tokio::time::sleep(Duration::from_millis(10)).await;
            continue;
        };
        let acceptor = acceptor.clone();
        tokio::spawn(async move {
            // A client that does not trust it ends the handshake; either side may end the rest.
            if let (Ok(mut stream), Ok(mut server)) = (acceptor.accept(stream).await, TcpStream::connect(server).await)
            {
                let _ = copy_bidirectional(&mut stream, &mut server).await;
            }
        });
    }
}
