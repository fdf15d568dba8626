//! TLS between nodes: the files that flags name, read and checked at the start.
//!
//! Both sides show a certificate of one authority, which is the cluster's own: having one makes a member. A caller also
//! checks that the certificate names the address that it called, so that the key of one node can't pose as all others. A
//! listener checks no name: a node may call from any address.

use std::sync::Arc;

use holdfast::cluster::NodeTls;
use rustls::{ClientConfig, RootCertStore, ServerConfig, server::WebPkiClientVerifier};
use rustls_pki_types::{PrivateKeyDer, UnixTime, pem::PemObject};

use crate::{cli::ClusterFlags, tls::certificates};

/// What the flags ask for; the error names the flag and its file.
pub fn load(flags: &ClusterFlags) -> Result<Option<NodeTls>, String> {
    let (Some(ca), Some(cert), Some(key)) = (&flags.raft_tls_ca, &flags.raft_tls_cert, &flags.raft_tls_key) else {
        return Ok(None);
    };
    let in_ca = |what: String| format!("--raft-tls-ca {}: {what}", ca.display());
    let in_cert = |what: String| format!("--raft-tls-cert {}: {what}", cert.display());
    let in_key = |what: String| format!("--raft-tls-key {}: {what}", key.display());

    let mut roots = RootCertStore::empty();
    for root in certificates(ca).map_err(in_ca)? {
        roots.add(root).map_err(|e| in_ca(e.to_string()))?;
    }
    let chain = certificates(cert).map_err(in_cert)?;
    let secret = PrivateKeyDer::from_pem_file(key).map_err(|e| in_key(e.to_string()))?;
    let roots = Arc::new(roots);
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(roots.clone(), provider.clone());
    let verifier = verifier.build().map_err(|e| in_ca(e.to_string()))?;
    // Else every other node would find out, each time.
    if let Some((own, rest)) = chain.split_first() {
        let checked = verifier.verify_client_cert(own, rest, UnixTime::now());
        checked.map_err(|e| in_cert(format!("no member by the authority of --raft-tls-ca {}: {e}", ca.display())))?;
    }
    let mismatch = |e: rustls::Error| in_key(format!("with --raft-tls-cert {}: {e}", cert.display()));
    let listener = ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .and_then(|builder| {
            builder.with_client_cert_verifier(verifier).with_single_cert(chain.clone(), secret.clone_key())
        })
        .map_err(mismatch)?;
    let caller = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .and_then(|builder| builder.with_root_certificates(roots).with_client_auth_cert(chain, secret))
        .map_err(mismatch)?;
    Ok(Some(NodeTls { listener: Arc::new(listener), caller: Arc::new(caller) }))
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};

    use super::*;

    struct Files(tempfile::TempDir);

    impl Files {
        /// An authority `ca`, a certificate of it `one`, and another authority `other`.
        fn new() -> Self {
            let files = Self(tempfile::tempdir().unwrap());
            let authority = |name: &str| {
                let key = KeyPair::generate().unwrap();
                let mut params = CertificateParams::default();
                params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
                files.put(name, &params.self_signed(&key).unwrap().pem());
                Issuer::new(params, key)
            };
            let ca = authority("ca");
            authority("other");
            for name in ["one", "two"] {
                let key = KeyPair::generate().unwrap();
                let params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
                files.put(name, &params.signed_by(&key, &ca).unwrap().pem());
                files.put(&format!("{name}.key"), &key.serialize_pem());
            }
            files.put("junk", "no pem");
            files
        }

        fn put(&self, name: &str, text: &str) {
            std::fs::write(self.path(name), text).unwrap();
        }

        fn path(&self, name: &str) -> PathBuf {
            self.0.path().join(name)
        }

        fn load(&self, ca: &str, cert: &str, key: &str) -> Result<Option<NodeTls>, String> {
            let flags = ClusterFlags {
                raft_tls_ca: Some(self.path(ca)),
                raft_tls_cert: Some(self.path(cert)),
                raft_tls_key: Some(self.path(key)),
                ..ClusterFlags::default()
            };
            load(&flags)
        }
    }

    #[test]
    fn wrong_files_are_named() {
        let files = Files::new();
        assert!(files.load("ca", "one", "one.key").unwrap().is_some());
        assert!(load(&ClusterFlags::default()).unwrap().is_none());
        for ((ca, cert, key), parts) in [
            (("nowhere", "one", "one.key"), ["--raft-tls-ca", "nowhere: "]),
            (("junk", "one", "one.key"), ["--raft-tls-ca", "junk: holds no certificate"]),
            (("ca", "junk", "one.key"), ["--raft-tls-cert", "junk: holds no certificate"]),
            (("ca", "one", "nowhere"), ["--raft-tls-key", "nowhere: "]),
            (("ca", "one", "junk"), ["--raft-tls-key", "junk: "]),
            (("ca", "one", "two.key"), ["--raft-tls-key", "two.key: with --raft-tls-cert"]),
            (("other", "one", "one.key"), ["--raft-tls-cert", "one: no member by the authority of --raft-tls-ca"]),
        ] {
            let error = files.load(ca, cert, key).err().unwrap();
            assert!(parts.iter().all(|part| error.contains(part)), "{error}");
        }
    }
}
