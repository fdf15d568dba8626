//! TLS: the certificate (given, or self-signed and kept in the data directory) and the RSA key for password exchange.

use std::{
    fs,
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use rustls::ServerConfig;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use tokio_rustls::TlsAcceptor;

use crate::wire::auth::RsaKey;

/// Why TLS can't be set up, with the file at fault.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file can't be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system answered.
        source: io::Error,
    },
    /// A file holds something else than it should.
    #[error("{}: {what}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// No certificate or key could be made.
    #[error("the self-signed certificate can't be made: {0}")]
    Make(String),
}

/// Certificate chain and key, as PEM files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateFiles {
    /// The chain.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

impl CertificateFiles {
    /// The self-signed pair in `data_dir/tls`, made at the first start.
    pub fn self_signed(data_dir: &Path) -> Result<Self, TlsError> {
        let files = Self { certificate: data_dir.join("tls/cert.pem"), key: data_dir.join("tls/key.pem") };
        if files.certificate.exists() && files.key.exists() {
            return Ok(files);
        }
        let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned(), "::1".to_owned(), "holdfast".to_owned()];
        let pair = rcgen::generate_simple_self_signed(names).map_err(|e| TlsError::Make(e.to_string()))?;
        write_private(&files.key, pair.signing_key.serialize_pem().as_bytes())?;
        write_private(&files.certificate, pair.cert.pem().as_bytes())?;
        tracing::info!(certificate = %files.certificate.display(), "made a self-signed certificate");
        Ok(files)
    }

    /// Loads the pair for TLS 1.2 and 1.3.
    pub fn acceptor(&self) -> Result<TlsAcceptor, TlsError> {
        let file = |path: &Path, what: String| TlsError::File { path: path.to_owned(), what };
        let chain = certificates(&self.certificate).map_err(|what| file(&self.certificate, what))?;
        let key = PrivateKeyDer::from_pem_file(&self.key).map_err(|e| file(&self.key, e.to_string()))?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, key))
            .map_err(|e| file(&self.certificate, e.to_string()))?;
        Ok(TlsAcceptor::from(Arc::new(config)))
    }
}

/// The certificates in a PEM file: one at least. The error does not name the file.
pub fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    match read {
        Ok(found) if found.is_empty() => Err("holds no certificate".to_owned()),
        Ok(found) => Ok(found),
        Err(e) => Err(e.to_string()),
    }
}

/// The RSA key in `data_dir/tls`, made at the first start so that clients may pin it.
pub fn rsa_key(data_dir: &Path) -> Result<RsaKey, TlsError> {
    let path = data_dir.join("tls/password-rsa.der");
    match fs::read(&path) {
        Ok(der) => RsaKey::from_pkcs8(&der).map_err(|e| TlsError::File { path, what: e.to_string() }),
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            let (key, der) = RsaKey::generate().map_err(|e| TlsError::Make(e.to_string()))?;
            write_private(&path, &der)?;
            Ok(key)
        }
        Err(source) => Err(TlsError::Io { path, source }),
    }
}

/// Writes a file that only its owner may read: whole or not at all.
fn write_private(path: &Path, bytes: &[u8]) -> Result<(), TlsError> {
    let write = || {
        if let Some(dir) = path.parent() {
            fs::create_dir_all(dir)?;
        }
        let part = path.with_extension("part");
        let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&part)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&part, path)
    };
    write().map_err(|source| TlsError::Io { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn the_self_signed_pair_is_made_once_and_private() {
        let dir = tempfile::tempdir().unwrap();
        let files = CertificateFiles::self_signed(dir.path()).unwrap();
        files.acceptor().unwrap();
        let first = fs::read(&files.certificate).unwrap();
        assert_eq!(fs::metadata(&files.key).unwrap().permissions().mode() & 0o777, 0o600);
        CertificateFiles::self_signed(dir.path()).unwrap();
        assert_eq!(fs::read(&files.certificate).unwrap(), first);
        let pem = rsa_key(dir.path()).unwrap().public_pem().to_owned();
        assert_eq!(rsa_key(dir.path()).unwrap().public_pem(), pem);
    }

    #[test]
    fn a_bad_file_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("bad.pem");
        fs::write(&path, "no pem").unwrap();
        let error = CertificateFiles { certificate: path.clone(), key: path }.acceptor().map(drop).unwrap_err();
        assert!(error.to_string().contains("bad.pem: holds no certificate"), "{error}");
    }
}
