//! The arithmetic of mysql_native_password and caching_sha2_password. No I/O.

use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der, PublicKeyX509Der};
use aws_lc_rs::rsa::{KeySize, OAEP_SHA1_MGF1SHA1, OaepPrivateDecryptingKey, PrivateDecryptingKey};
use sha1::Sha1;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

/// Bytes of the challenge that a login answers.
pub const SCRAMBLE_LEN: usize = 20;

/// The authentication methods that accounts may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Plugin {
    /// mysql_native_password.
    Native,
    /// caching_sha2_password.
    #[default]
    CachingSha2,
}

impl Plugin {
    /// The name on the wire.
    pub fn name(self) -> &'static str {
        match self {
            Self::Native => "mysql_native_password",
            Self::CachingSha2 => "caching_sha2_password",
        }
    }
    /// The plugin of a name, if this server has it.
    pub fn from_name(name: &[u8]) -> Option<Self> {
        [Self::Native, Self::CachingSha2].into_iter().find(|plugin| plugin.name().as_bytes() == name)
    }
}

/// The system's random source failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the system gives no random bytes")]
pub struct NoRandom;

/// A fresh challenge: never zero (it is sent as a zero-ended string) and never `$`, as in MySQL.
pub fn scramble() -> Result<[u8; SCRAMBLE_LEN], NoRandom> {
    let mut bytes = [0; SCRAMBLE_LEN];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| NoRandom)?;
    for byte in &mut bytes {
        *byte &= 0x7f;
        if matches!(*byte, 0 | b'$') {
            *byte += 1;
        }
    }
    Ok(bytes)
}

fn xor<const N: usize>(a: [u8; N], b: &[u8; N]) -> [u8; N] {
    let mut out = a;
    out.iter_mut().zip(b).for_each(|(x, y)| *x ^= y);
    out
}

/// SHA1(SHA1(password)): what an account of mysql_native_password stores.
pub fn native_digest(password: &[u8]) -> [u8; 20] {
    Sha1::digest(Sha1::digest(password)).into()
}

/// Whether `response` to `scramble` proves knowledge of the password behind `stored`.
pub fn native_check(response: &[u8], scramble: &[u8; SCRAMBLE_LEN], stored: &[u8; 20]) -> bool {
    let Ok(response) = <[u8; 20]>::try_from(response) else { return false };
    let key: [u8; 20] = Sha1::new().chain_update(scramble).chain_update(stored).finalize().into();
    let digest: [u8; 20] = Sha1::digest(xor(response, &key)).into();
    digest.ct_eq(stored).into()
}

/// SHA256(SHA256(password)): what the server remembers after a full caching_sha2 login.
pub fn sha2_digest(password: &[u8]) -> [u8; 32] {
    Sha256::digest(Sha256::digest(password)).into()
}

/// The fast path of caching_sha2_password against a remembered digest.
pub fn sha2_check(response: &[u8], scramble: &[u8; SCRAMBLE_LEN], remembered: &[u8; 32]) -> bool {
    let Ok(response) = <[u8; 32]>::try_from(response) else { return false };
    let key: [u8; 32] = Sha256::new().chain_update(remembered).chain_update(scramble).finalize().into();
    let digest: [u8; 32] = Sha256::digest(xor(response, &key)).into();
    digest.ct_eq(remembered).into()
}

/// What clients compute; here for tests and for the bench's own client.
#[cfg(test)]
pub fn native_response(password: &[u8], scramble: &[u8; SCRAMBLE_LEN]) -> [u8; 20] {
    let key = Sha1::new().chain_update(scramble).chain_update(native_digest(password)).finalize().into();
    xor(Sha1::digest(password).into(), &key)
}

/// The RSA key that protects passwords of caching_sha2 logins without TLS.
#[derive(Debug)]
pub struct RsaKey {
    key: OaepPrivateDecryptingKey,
    public_pem: String,
}

/// The key can't be made, read or encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the RSA key for password exchange can't be {0}")]
pub struct RsaError(&'static str);

impl RsaKey {
    /// Makes a 2048-bit key (some 100 ms); returns its PKCS#8 form to be kept.
    pub fn generate() -> Result<(Self, Vec<u8>), RsaError> {
        let key = PrivateDecryptingKey::generate(KeySize::Rsa2048).map_err(|_| RsaError("made"))?;
        let der = AsDer::<Pkcs8V1Der<'_>>::as_der(&key).map_err(|_| RsaError("encoded"))?;
        Ok((Self::new(key)?, der.as_ref().to_vec()))
    }

    /// Reads a key that was kept.
    pub fn from_pkcs8(der: &[u8]) -> Result<Self, RsaError> {
        Self::new(PrivateDecryptingKey::from_pkcs8(der).map_err(|_| RsaError("read"))?)
    }
    fn new(key: PrivateDecryptingKey) -> Result<Self, RsaError> {
        let public = key.public_key();
        let der = AsDer::<PublicKeyX509Der<'_>>::as_der(&public).map_err(|_| RsaError("encoded"))?;
        let public_pem = pem("PUBLIC KEY", der.as_ref());
        Ok(Self { key: OaepPrivateDecryptingKey::new(key).map_err(|_| RsaError("used"))?, public_pem })
    }
    /// What a client asks for with the byte 2.
    pub fn public_pem(&self) -> &str {
        &self.public_pem
    }
    /// The password in a client's OAEP message: zero-ended, XORed with the scramble.
    pub fn password(&self, message: &[u8], scramble: &[u8; SCRAMBLE_LEN]) -> Option<Vec<u8>> {
        let mut out = vec![0; self.key.min_output_size()];
        let mut plain = self.key.decrypt(&OAEP_SHA1_MGF1SHA1, message, &mut out, None).ok()?.to_vec();
        plain.iter_mut().zip(scramble.iter().cycle()).for_each(|(byte, key)| *byte ^= key);
        (plain.pop()? == 0).then_some(plain)
    }
}

fn pem(label: &str, der: &[u8]) -> String {
    let mut out = format!("-----BEGIN {label}-----\n");
    for line in base64(der).as_bytes().chunks(64) {
        out.push_str(&String::from_utf8_lossy(line));
        out.push('\n');
    }
    out + &format!("-----END {label}-----\n")
}

fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let word = chunk.iter().chain([&0, &0]).take(3).fold(0u32, |word, byte| word << 8 | u32::from(*byte));
        for i in 0..4 {
            let digit = ALPHABET.get((word >> (18 - 6 * i)) as usize & 63).copied().unwrap_or(b'=');
            out.push(if i <= chunk.len() { char::from(digit) } else { '=' });
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use mysql_common::{
        auth::plugins::{caching_sha2_password::scramble_sha256, mysql_native_password::scramble_native},
        crypto,
    };

    use super::*;

    #[test]
    fn native_agrees_with_the_oracle() {
        let challenge = scramble().unwrap();
        let response = scramble_native(&challenge, b"s3cret").unwrap();
        assert!(native_check(&response, &challenge, &native_digest(b"s3cret")));
        assert!(!native_check(&response, &challenge, &native_digest(b"other")));
        assert!(!native_check(&response[1..], &challenge, &native_digest(b"s3cret")));
        assert_eq!(response, native_response(b"s3cret", &challenge));
    }

    #[test]
    fn caching_sha2_agrees_with_the_oracle() {
        let challenge = scramble().unwrap();
        let response = scramble_sha256(&challenge, b"s3cret").unwrap();
        assert!(sha2_check(&response, &challenge, &sha2_digest(b"s3cret")));
        assert!(!sha2_check(&response, &challenge, &sha2_digest(b"S3cret")));
        assert!(!sha2_check(&[], &challenge, &sha2_digest(b"s3cret")));
    }

    #[test]
    fn the_rsa_exchange_agrees_with_the_oracle() {
        let (key, pkcs8) = RsaKey::generate().unwrap();
        let challenge = scramble().unwrap();
        let mut password = b"s3cret with spaces\0".to_vec();
        password.iter_mut().zip(challenge.iter().cycle()).for_each(|(byte, k)| *byte ^= k);
        let message = crypto::encrypt(&password, key.public_pem().as_bytes()).unwrap();
        assert_eq!(key.password(&message, &challenge).as_deref(), Some(&b"s3cret with spaces"[..]));
        let again = RsaKey::from_pkcs8(&pkcs8).unwrap();
        assert_eq!(again.public_pem(), key.public_pem());
        assert_eq!(again.password(&message[1..], &challenge), None);
        assert_eq!(again.password(&[], &challenge), None);
    }

    #[test]
    fn base64_pads() {
        for (plain, encoded) in [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foob", "Zm9vYg==")] {
            assert_eq!(base64(plain.as_bytes()), encoded);
        }
    }

    #[test]
    fn a_scramble_has_no_zero_and_no_dollar() {
        for _ in 0..200 {
            assert!(scramble().unwrap().iter().all(|b| *b != 0 && *b != b'$' && *b < 0x80));
        }
    }
}
