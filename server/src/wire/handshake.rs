//! The greeting, the client's answer to it, and COM_CHANGE_USER's body.

use super::{
    auth::{Plugin, SCRAMBLE_LEN},
    codec::{Malformed, Put, Reader},
    consts::cap,
};

/// What `SELECT VERSION()` says. Clients switch on modern paths at 8.0.20, and off SHOW MASTER STATUS at 8.4.
pub const SERVER_VERSION: &str = "8.0.36-holdfast";
/// utf8mb4_0900_ai_ci, which clients know as 255.
const SERVER_COLLATION: u8 = 255;

/// Payload of the protocol 10 greeting.
pub fn greeting(connection_id: u32, scramble: &[u8; SCRAMBLE_LEN], capabilities: u32, status: u16) -> Vec<u8> {
    let (head, tail) = scramble.split_at(8);
    let mut out = Vec::with_capacity(96);
    out.put_u8(10);
    out.put_nul_bytes(SERVER_VERSION.as_bytes());
    out.put_u32(connection_id);
    out.put_nul_bytes(head);
    out.put_u16(capabilities as u16);
    out.put_u8(SERVER_COLLATION);
    out.put_u16(status);
    out.put_u16((capabilities >> 16) as u16);
    out.put_u8(SCRAMBLE_LEN as u8 + 1);
    out.extend_from_slice(&[0; 10]);
    out.put_nul_bytes(tail);
    // The plugin that every client has built in. Naming the other one makes libmariadb load it from a file, which two
    // threads that connect at once do not survive ("packets out of order"); accounts that want it switch to it.
    out.put_nul_bytes(Plugin::Native.name().as_bytes());
    out
}

/// The client's first packet: either a wish for TLS, or the login itself.
#[derive(Debug, PartialEq, Eq)]
pub enum Hello<'a> {
    /// Go on encrypted; the login packet follows.
    Tls,
    /// The login itself.
    Login(LoginPacket<'a>),
}

/// HandshakeResponse41.
#[derive(Debug, PartialEq, Eq)]
pub struct LoginPacket<'a> {
    /// Those that both sides have.
    pub capabilities: u32,
    /// The id of the client's collation.
    pub collation: u16,
    /// Account name.
    pub user: &'a [u8],
    /// Answer to the scramble, by the rules of `plugin`.
    pub auth: &'a [u8],
    /// Database to start in.
    pub database: Option<&'a [u8]>,
    /// Plugin that `auth` was made by, if named.
    pub plugin: Option<&'a [u8]>,
}

/// Decodes the client's first packet; `offered` is what the greeting said.
pub fn decode_hello(packet: &[u8], offered: u32) -> Result<Hello<'_>, Malformed> {
    let mut r = Reader::new(packet);
    let capabilities = r.u32("client capabilities")?;
    if capabilities & cap::PROTOCOL_41 == 0 {
        return Err(Malformed("clients older than MySQL 4.1 are not supported"));
    }
    r.u32("client max_allowed_packet")?;
    let collation = r.u8("client collation")?;
    r.bytes(23, "filler of the login packet")?;
    // An SSL request is a login packet cut here.
    if r.is_empty() && capabilities & offered & cap::SSL != 0 {
        return Ok(Hello::Tls);
    }
    let capabilities = capabilities & offered;
    let user = r.nul_bytes("user name")?;
    let auth = if capabilities & cap::PLUGIN_AUTH_LENENC != 0 {
        r.lenenc_bytes("authentication data")?
    } else if capabilities & cap::SECURE_CONNECTION != 0 {
        let len = r.u8("authentication data")?;
        r.bytes(len.into(), "authentication data")?
    } else {
        r.nul_bytes("authentication data")?
    };
    let database =
        (capabilities & cap::CONNECT_WITH_DB != 0).then(|| r.nul_bytes_or_rest()).filter(|db| !db.is_empty());
    let plugin = (capabilities & cap::PLUGIN_AUTH != 0).then(|| r.nul_bytes_or_rest());
    check_attributes(&mut r, capabilities)?;
    Ok(Hello::Login(LoginPacket { capabilities, collation: collation.into(), user, auth, database, plugin }))
}

/// COM_CHANGE_USER, the command byte already read.
#[derive(Debug, PartialEq, Eq)]
pub struct ChangeUser<'a> {
    /// Account name.
    pub user: &'a [u8],
    /// Answer to the scramble, by the rules of `plugin`.
    pub auth: &'a [u8],
    /// Database to start in.
    pub database: Option<&'a [u8]>,
    /// The id of the client's collation; old clients name none.
    pub collation: Option<u16>,
    /// Plugin that `auth` was made by, if named.
    pub plugin: Option<&'a [u8]>,
}

/// Decodes COM_CHANGE_USER's body.
pub fn decode_change_user(body: &[u8], capabilities: u32) -> Result<ChangeUser<'_>, Malformed> {
    let mut r = Reader::new(body);
    let user = r.nul_bytes("user name")?;
    let auth = if capabilities & cap::SECURE_CONNECTION != 0 {
        let len = r.u8("authentication data")?;
        r.bytes(len.into(), "authentication data")?
    } else {
        r.nul_bytes("authentication data")?
    };
    let database = Some(r.nul_bytes_or_rest()).filter(|db| !db.is_empty());
    // Old clients end here.
    let collation = if r.is_empty() { None } else { Some(r.u16("client collation")?) };
    let plugin = (capabilities & cap::PLUGIN_AUTH != 0 && !r.is_empty()).then(|| r.nul_bytes_or_rest());
    check_attributes(&mut r, capabilities)?;
    Ok(ChangeUser { user, auth, database, collation, plugin })
}

/// Connection attributes are read for their form only: nothing here uses them yet.
fn check_attributes(r: &mut Reader<'_>, capabilities: u32) -> Result<(), Malformed> {
    if capabilities & cap::CONNECT_ATTRS == 0 || r.is_empty() {
        return Ok(());
    }
    let mut attributes = Reader::new(r.lenenc_bytes("connection attributes")?);
    while !attributes.is_empty() {
        attributes.lenenc_bytes("connection attribute name")?;
        attributes.lenenc_bytes("connection attribute value")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use mysql_common::{
        constants::{CapabilityFlags, StatusFlags},
        io::ParseBuf,
        packets::{AuthPlugin, HandshakePacket, HandshakeResponse},
        proto::{MyDeserialize, MySerialize},
    };
    use proptest::prelude::*;

    use super::*;

    const SCRAMBLE: [u8; SCRAMBLE_LEN] = *b"abcdefghijklmnopqrst";

    #[test]
    fn the_greeting_reads_back_as_sent() {
        let bytes = greeting(77, &SCRAMBLE, cap::SERVER | cap::SSL, 2);
        let packet = HandshakePacket::deserialize((), &mut ParseBuf(&bytes)).unwrap();
        assert_eq!(packet.server_version_ref(), SERVER_VERSION.as_bytes());
        assert_eq!(packet.connection_id(), 77);
        assert_eq!(packet.nonce(), SCRAMBLE);
        assert_eq!(packet.capabilities(), CapabilityFlags::from_bits_retain(cap::SERVER | cap::SSL));
        assert_eq!(packet.status_flags(), StatusFlags::SERVER_STATUS_AUTOCOMMIT);
        assert_eq!(packet.auth_plugin(), Some(AuthPlugin::MysqlNativePassword));
    }

    #[test]
    fn a_login_packet_of_the_oracle_is_understood() {
        let response = HandshakeResponse::new(
            Some(&b"secret-hash"[..]),
            (8, 0, 36),
            Some(&b"me"[..]),
            Some(&b"shop"[..]),
            Some(AuthPlugin::MysqlNativePassword),
            CapabilityFlags::from_bits_retain(cap::SERVER & !cap::SSL),
            Some([("_client_name".to_owned(), "oracle".to_owned())].into()),
            1 << 24,
        );
        let mut bytes = Vec::new();
        response.serialize(&mut bytes);
        let Hello::Login(login) = decode_hello(&bytes, cap::SERVER).unwrap() else { panic!("no TLS was asked for") };
        assert_eq!((login.user, login.auth, login.database), (&b"me"[..], &b"secret-hash"[..], Some(&b"shop"[..])));
        assert_eq!(login.plugin, Some(&b"mysql_native_password"[..]));
        assert_eq!(login.capabilities & cap::CONNECT_ATTRS, cap::CONNECT_ATTRS);
    }

    #[test]
    fn a_cut_login_packet_is_a_wish_for_tls_only_if_tls_was_offered() {
        let mut bytes = vec![0; 32];
        bytes[..4].copy_from_slice(&(cap::PROTOCOL_41 | cap::SSL).to_le_bytes());
        assert_eq!(decode_hello(&bytes, cap::SERVER | cap::SSL), Ok(Hello::Tls));
        assert!(decode_hello(&bytes, cap::SERVER).is_err());
    }

    proptest! {
        #[test]
        fn garbage_is_malformed_not_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), capabilities: u32) {
            let mut bytes = bytes;
            let _ = decode_change_user(&bytes, capabilities);
            let _ = decode_hello(&bytes, capabilities);
            if let Some(head) = bytes.first_chunk_mut::<4>() {
                *head = (capabilities | cap::PROTOCOL_41).to_le_bytes();
            }
            let _ = decode_hello(&bytes, cap::SERVER | cap::SSL);
        }
    }
}
