//! Nodes over TLS: members of one authority replicate; whoever is none is refused, and both sides are told why.

use std::sync::Arc;

use bytes::Bytes;
use holdfast_wal::transport::{NodeTls, Peer, TcpTransport, Transport};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::{
    ClientConfig, RootCertStore, ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer},
    server::WebPkiClientVerifier,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::tcp::{CLUSTER, Echo, LONG, peer, replicate};

/// A private authority.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
}

impl Authority {
    fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).unwrap().der().clone();
        Self { issuer: Issuer::new(params, key), certificate }
    }

    /// What a node needs that is called `name`, shows a certificate of this authority and trusts those of `trusted`.
    fn node(&self, name: &str, trusted: &Self) -> NodeTls {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        let chain = vec![params.signed_by(&key, &self.issuer).unwrap().der().clone()];
        let key = PrivateKeyDer::Pkcs8(key.serialize_der().into());
        let mut roots = RootCertStore::empty();
        roots.add(trusted.certificate.clone()).unwrap();
        let roots = Arc::new(roots);
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(roots.clone(), provider.clone()).build().unwrap();
        let listener = ServerConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_client_cert_verifier(verifier)
            .with_single_cert(chain.clone(), key.clone_key())
            .unwrap();
        let caller = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_root_certificates(roots)
            .with_client_auth_cert(chain, key)
            .unwrap();
        NodeTls { listener: Arc::new(listener), caller: Arc::new(caller) }
    }

    fn member(&self) -> Option<NodeTls> {
        Some(self.node("127.0.0.1", self))
    }
}

async fn bind(node: u64, tls: Option<NodeTls>) -> TcpTransport {
    TcpTransport::bind(CLUSTER, node, "127.0.0.1:0", tls).await.unwrap()
}

async fn call(from: &TcpTransport, to: &Peer) -> Result<Bytes, String> {
    from.call(to.clone(), Bytes::from_static(b"x"), LONG).await.map_err(|e| e.to_string())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_nodes_replicate_over_tls() {
    let ours = Authority::new();
    let member = |id| bind(id, ours.member());
    replicate([member(1).await, member(2).await, member(3).await]).await;
}

#[tokio::test]
async fn whoever_is_no_member_is_refused_and_told_why() {
    let (ours, foreign) = (Authority::new(), Authority::new());
    let listener = bind(2, ours.member()).await;
    listener.serve(Arc::new(Echo::default()));
    let to = peer(2, &listener);
    for (caller, expected) in [
        (None, "it speaks TLS, and this node does not"),
        (foreign.member(), "not of the authority that this node trusts"),
        (Some(foreign.node("127.0.0.1", &ours)), "it does not trust this node's certificate"),
    ] {
        let error = call(&bind(1, caller.clone()).await, &to).await.unwrap_err();
        assert!(error.contains(expected) && error.contains(&to.addr), "{error}");
        let error = bind(1, caller).await.open_stream(&to).await.unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
    // A member is answered as before, also in large.
    let member = bind(1, ours.member()).await;
    assert_eq!(call(&member, &to).await.unwrap(), "x");
    let large = Bytes::from(vec![7; 5 << 20]);
    assert_eq!(member.call(to, large.clone(), LONG).await, Ok(large));
}

#[tokio::test]
async fn a_caller_checks_whom_it_reached() {
    let ours = Authority::new();
    let caller = bind(1, ours.member()).await;
    for (listener, expected) in [
        (None, "is TLS between nodes on there too?"),
        (Some(ours.node("elsewhere.test", &ours)), "its certificate does not name the address"),
        (Some(Authority::new().node("127.0.0.1", &ours)), "not of the authority that this node trusts"),
    ] {
        let listener = bind(2, listener).await;
        listener.serve(Arc::new(Echo::default()));
        let error = call(&caller, &peer(2, &listener)).await.unwrap_err();
        assert!(error.contains(expected), "{error}");
        listener.stop();
    }
}

#[tokio::test]
async fn streams_are_encrypted_as_well() {
    let ours = Authority::new();
    let (one, two) = (bind(1, ours.member()).await, bind(2, ours.member()).await);
    two.serve(Arc::new(Echo::default()));
    let mut streams = two.accept_streams();
    let mut mine = one.open_stream(&peer(2, &two)).await.unwrap();
    let (from, mut theirs) = streams.recv().await.unwrap();
    mine.write_all(b"hello").await.unwrap();
    mine.flush().await.unwrap();
    let mut got = [0; 5];
    theirs.read_exact(&mut got).await.unwrap();
    assert_eq!((from, &got), (1, b"hello"));
    drop(mine);
    // Closed without the word that TLS has for it.
    assert!(matches!(theirs.read(&mut got).await, Ok(0) | Err(_)));
}
