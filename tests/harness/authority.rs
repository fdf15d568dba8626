//! A private authority whose certificates let nodes speak TLS with each other.

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use tempfile::TempDir;

/// An authority, and one certificate of it for all nodes of a host. The files go with it.
pub struct Authority(TempDir);

impl Authority {
    /// For nodes at `address`.
    pub fn new(address: &str) -> Self {
        let files = Self(tempfile::tempdir().expect("a folder"));
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        files.put("ca.pem", &params.self_signed(&key).expect("a certificate").pem());
        let issuer = Issuer::new(params, key);
        let key = KeyPair::generate().expect("a key");
        let params = CertificateParams::new(vec![address.to_owned()]).expect("a name");
        files.put("node.pem", &params.signed_by(&key, &issuer).expect("a certificate").pem());
        files.put("node-key.pem", &key.serialize_pem());
        files
    }

    fn put(&self, name: &str, text: &str) {
        std::fs::write(self.0.path().join(name), text).expect("write");
    }

    /// What `holdfast serve` is told.
    pub fn flags(&self) -> Vec<String> {
        let file = |flag: &str, name: &str| [flag.to_owned(), self.0.path().join(name).display().to_string()];
        let files = [("--raft-tls-ca", "ca.pem"), ("--raft-tls-cert", "node.pem"), ("--raft-tls-key", "node-key.pem")];
        files.into_iter().flat_map(|(flag, name)| file(flag, name)).collect()
    }
}
