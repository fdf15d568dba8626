//! Login: greeting, TLS, authentication by either plugin, and the session's start. COM_CHANGE_USER repeats the last two.

use std::net::IpAddr;

use super::{End, Server, refuse, stream::Stream};
use crate::{
    backend::Backend,
    processlist::Process,
    session::Login,
    users::{Account, Secret},
    wire::{
        auth::{self, Plugin, SCRAMBLE_LEN},
        consts::{cap, status},
        handshake::{self, Hello},
        packet::Input,
        reply::Output,
        result::SqlError,
    },
};

/// No login packet is longer; nothing larger is read before the client is known.
const LOGIN_PACKET_MAX: usize = 64 << 10;
/// Second byte of AuthMoreData in caching_sha2_password.
const FAST_OK: u8 = 3;
const FULL_WANTED: u8 = 4;
/// What a client sends to ask for the public key.
const KEY_WANTED: &[u8] = &[2];

/// The two ends of the wire and what was agreed over it.
pub(super) struct Link {
    pub stream: Stream,
    pub input: Input,
    pub out: Output,
    /// Capabilities that both sides have; zero before the login packet.
    pub capabilities: u32,
    scramble: [u8; SCRAMBLE_LEN],
    peer: IpAddr,
}

/// Who wants in, and with what proof.
struct Claim<'a> {
    user: &'a str,
    plugin: Plugin,
    response: Vec<u8>,
}

impl Link {
    pub fn new(stream: Stream, peer: IpAddr) -> Self {
        let (input, out) = (Input::default(), Output::default());
        Self { stream, input, out, capabilities: 0, scramble: [0; SCRAMBLE_LEN], peer }
    }

    pub async fn login<B: Backend>(
        &mut self,
        server: &Server<B>,
        process: &std::sync::Arc<Process>,
    ) -> Result<(Login, B::Session), End> {
        let offered = cap::SERVER | if server.tls.is_some() { cap::SSL } else { 0 };
        self.renew_scramble()?;
        self.out.begin(0, false);
        self.out.packet(&handshake::greeting(process.id(), &self.scramble, offered, status::AUTOCOMMIT));
        self.out.send(&mut self.stream).await?;

        let mut packet = self.receive(1).await?;
        if let Hello::Tls = handshake::decode_hello(&packet, offered).map_err(|m| End::Refused(bad_handshake(m)))? {
            self.start_tls(server).await?;
            packet = self.receive(2).await?;
        }
        let login = match handshake::decode_hello(&packet, offered).map_err(|m| End::Refused(bad_handshake(m)))? {
            Hello::Login(login) => login,
            Hello::Tls => return Err(End::Refused(bad_handshake(crate::wire::codec::Malformed("TLS is on already")))),
        };
        self.capabilities = login.capabilities;
        self.out.set_capabilities(login.capabilities);
        if server.require_tls && !matches!(self.stream, Stream::Tls(_)) {
            let what = "Connections using insecure transport are prohibited while --require-tls is set.";
            return Err(End::Refused(SqlError::new(3159, b"HY000", what)));
        }
        let user = String::from_utf8_lossy(login.user).into_owned();
        let database = login.database.map(|name| String::from_utf8_lossy(name).into_owned());
        let claim = self.claim(&user, login.plugin, login.auth);
        self.authenticate(server, claim).await?;
        let login = Login {
            connection_id: process.id(),
            host: self.host(),
            database,
            collation: login.collation,
            found_rows: self.capabilities & cap::FOUND_ROWS != 0,
            multi_statements: self.capabilities & cap::MULTI_STATEMENTS != 0,
            tls: self.stream.tls(),
            process: Some(process.clone()),
            user,
        };
        let session = server.backend.open(login.clone()).await.map_err(End::Refused)?;
        Ok((login, session))
    }

    pub async fn change_user<B: Backend>(
        &mut self,
        server: &Server<B>,
        before: &Login,
        body: &[u8],
    ) -> Result<(Login, B::Session), End> {
        let change = handshake::decode_change_user(body, self.capabilities).map_err(|m| End::Refused(refuse(m)))?;
        let user = String::from_utf8_lossy(change.user).into_owned();
        let claim = self.claim(&user, change.plugin, change.auth);
        self.authenticate(server, claim).await?;
        let login = Login {
            user,
            database: change.database.map(|name| String::from_utf8_lossy(name).into_owned()),
            collation: change.collation.map_or(before.collation, |collation| collation & 0xff),
            ..before.clone()
        };
        let session = server.backend.open(login.clone()).await.map_err(End::Refused)?;
        Ok((login, session))
    }

    /// A client that names no plugin, or an unknown one, is taken for the old default.
    fn claim<'a>(&self, user: &'a str, plugin: Option<&[u8]>, response: &[u8]) -> Claim<'a> {
        let plugin = plugin.and_then(Plugin::from_name).unwrap_or(Plugin::Native);
        Claim { user, plugin, response: response.to_vec() }
    }

    /// Proves the client's claim, or refuses it with 1045. An unknown user takes the same steps as a known one.
    async fn authenticate<B: Backend>(&mut self, server: &Server<B>, mut claim: Claim<'_>) -> Result<(), End> {
        let found = server.backend.account(claim.user).await.map_err(End::Refused)?;
        let known = found.is_some();
        let account = found.unwrap_or(Account { plugin: Plugin::CachingSha2, secret: Secret::Native([0; 20]) });
        let empty = matches!(claim.response.as_slice(), [] | [0]);
        if account.secret == Secret::Empty {
            return match (empty, self.peer.is_loopback()) {
                (true, true) => Ok(()),
                (true, false) => {
                    Err(self.denied(claim.user, false, ". Accounts without a password are accepted from loopback only"))
                }
                (false, _) => Err(self.denied(claim.user, true, "")),
            };
        }
        if empty {
            return Err(self.denied(claim.user, false, ""));
        }
        if claim.plugin != account.plugin {
            claim.response = self.switch_plugin(account.plugin).await?;
        }
        let proven = match (account.plugin, &account.secret) {
            (Plugin::Native, Secret::Native(digest)) => auth::native_check(&claim.response, &self.scramble, digest),
            (Plugin::Native, _) => false,
            (Plugin::CachingSha2, _) => self.caching_sha2(server, &claim, &account).await?,
        };
        if known && proven { Ok(()) } else { Err(self.denied(claim.user, true, "")) }
    }

    async fn caching_sha2<B: Backend>(
        &mut self,
        server: &Server<B>,
        claim: &Claim<'_>,
        account: &Account,
    ) -> Result<bool, End> {
        if let Some(proven) = server.authenticator.fast(claim.user, account, &claim.response, &self.scramble) {
            if proven {
                self.out.packet(&[1, FAST_OK]);
            }
            return Ok(proven);
        }
        self.out.packet(&[1, FULL_WANTED]);
        let mut answer = self.exchange().await?;
        let password = if matches!(self.stream, Stream::Tls(_)) {
            (answer.pop() == Some(0)).then_some(answer)
        } else {
            if answer == KEY_WANTED {
                let mut key = vec![1];
                key.extend_from_slice(server.rsa.public_pem().as_bytes());
                self.out.packet(&key);
                answer = self.exchange().await?;
            }
            server.rsa.password(&answer, &self.scramble)
        };
        match password {
            Some(password) => Ok(server.authenticator.full(claim.user, account, password).await),
            None => Ok(false),
        }
    }

    /// AuthSwitchRequest with a fresh scramble; returns the client's new answer.
    async fn switch_plugin(&mut self, plugin: Plugin) -> Result<Vec<u8>, End> {
        if self.capabilities & cap::PLUGIN_AUTH == 0 {
            let what =
                "Client does not support authentication protocol requested by server; consider upgrading MySQL client";
            return Err(End::Refused(SqlError::new(1251, b"08004", what)));
        }
        self.renew_scramble()?;
        let mut request = vec![0xfe];
        request.extend_from_slice(plugin.name().as_bytes());
        request.push(0);
        request.extend_from_slice(&self.scramble);
        request.push(0);
        self.out.packet(&request);
        self.exchange().await
    }

    fn renew_scramble(&mut self) -> Result<(), End> {
        self.scramble = auth::scramble().map_err(|e| End::Refused(SqlError::new(1105, b"HY000", e.to_string())))?;
        Ok(())
    }

    /// Sends what is buffered and reads the client's next packet of the exchange.
    async fn exchange(&mut self) -> Result<Vec<u8>, End> {
        self.out.send(&mut self.stream).await?;
        self.receive(self.out.next_seq()).await
    }

    async fn receive(&mut self, seq: u8) -> Result<Vec<u8>, End> {
        let packet = self.input.read(&mut self.stream, seq, LOGIN_PACKET_MAX).await?.to_vec();
        self.out.begin(self.input.next_seq(), false);
        Ok(packet)
    }

    async fn start_tls<B: Backend>(&mut self, server: &Server<B>) -> Result<(), End> {
        let broken = |what| End::Tls(std::io::Error::other(what));
        let Some(acceptor) = &server.tls else { return Err(broken("TLS is off")) };
        // Plain bytes before the TLS handshake would be taken for encrypted ones afterwards.
        if self.input.unread() > 0 {
            return Err(broken("bytes in clear after the request for TLS"));
        }
        let stream = std::mem::replace(&mut self.stream, Stream::Closed);
        let Stream::Plain(socket) = stream else { return Err(broken("TLS is on already")) };
        let encrypted = acceptor.accept(socket).await.map_err(End::Tls)?;
        self.stream = Stream::Tls(Box::new(encrypted));
        Ok(())
    }

    fn host(&self) -> String {
        if self.peer.is_loopback() { "localhost".to_owned() } else { self.peer.to_string() }
    }

    fn denied(&self, user: &str, password: bool, more: &str) -> End {
        let using = if password { "YES" } else { "NO" };
        let host = self.host();
        let what = format!("Access denied for user '{user}'@'{host}' (using password: {using}){more}");
        End::Refused(SqlError::new(1045, b"28000", what))
    }
}

fn bad_handshake(malformed: crate::wire::codec::Malformed) -> SqlError {
    SqlError::new(1043, b"08S01", format!("Bad handshake: {}", malformed.0))
}
