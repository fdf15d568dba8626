//! Accounts: their secrets, how they are stored, and the check of a login against them.
//!
//! Stored form, one row for each account in the keyspace `sys.users`, key = user name, value = UTF-8 text:
//!
//! | field | meaning |
//! |---|---|
//! | `1` | version of the form |
//! | plugin | `mysql_native_password` or `caching_sha2_password` |
//! | secret | nothing (no password), or `*` and 40 hex digits (native: SHA1 of SHA1), or `pbkdf2:ROUNDS:SALT:HASH` in hex |
//!
//! separated by spaces. Rows carry the checksums of their page; a row of a newer version is refused.

use std::{collections::HashMap, num::NonZeroU32};

use aws_lc_rs::pbkdf2;
use holdfast::{Db, Keyspace};
use parking_lot::Mutex;
use tokio::sync::Semaphore;

use crate::wire::{
    auth::{self, Plugin, SCRAMBLE_LEN},
    result::SqlError,
};

const VERSION: &str = "1";
/// Work of one full caching_sha2 login, some 20 ms of one core. Later logins take the fast path.
const ROUNDS: NonZeroU32 = NonZeroU32::new(60_000).unwrap();
/// Full logins that may burn CPU at once.
const FULL_LOGINS: usize = 2;
/// Accounts whose digest is remembered for the fast path.
const REMEMBERED: usize = 1024;
/// Longest password that is accepted (MySQL's own limit).
pub const PASSWORD_MAX: usize = 256;

/// What proves a login.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Secret {
    /// No password. Accepted from loopback only.
    Empty,
    /// SHA1(SHA1(password)).
    Native([u8; 20]),
    /// PBKDF2-HMAC-SHA256 of the password.
    Pbkdf2 {
        /// Iterations.
        rounds: NonZeroU32,
        /// Random, one for each password.
        salt: [u8; 16],
        /// The result.
        hash: [u8; 32],
    },
}

/// An account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// How it proves itself.
    pub plugin: Plugin,
    /// What is checked.
    pub secret: Secret,
}

impl Account {
    /// An account without a password.
    pub fn empty() -> Self {
        Self { plugin: Plugin::default(), secret: Secret::Empty }
    }

    /// Hashes a password (some 20 ms for caching_sha2: call it on a blocking thread).
    pub fn with_password(plugin: Plugin, password: &[u8]) -> Result<Self, SqlError> {
        if password.is_empty() {
            return Ok(Self { plugin, secret: Secret::Empty });
        }
        if password.len() > PASSWORD_MAX {
            return Err(SqlError::new(1819, b"HY000", format!("The password is longer than {PASSWORD_MAX} bytes")));
        }
        let secret = match plugin {
            Plugin::Native => Secret::Native(auth::native_digest(password)),
            Plugin::CachingSha2 => {
                let mut salt = [0; 16];
                aws_lc_rs::rand::fill(&mut salt)
                    .map_err(|_| SqlError::new(1105, b"HY000", auth::NoRandom.to_string()))?;
                let mut hash = [0; 32];
                pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, ROUNDS, &salt, password, &mut hash);
                Secret::Pbkdf2 { rounds: ROUNDS, salt, hash }
            }
        };
        Ok(Self { plugin, secret })
    }

    /// Whether `password` is this account's. As expensive as [`Account::with_password`].
    pub fn verify(&self, password: &[u8]) -> bool {
        match &self.secret {
            Secret::Empty => password.is_empty(),
            Secret::Native(stored) => {
                subtle::ConstantTimeEq::ct_eq(&auth::native_digest(password)[..], &stored[..]).into()
            }
            Secret::Pbkdf2 { rounds, salt, hash } => {
                pbkdf2::verify(pbkdf2::PBKDF2_HMAC_SHA256, *rounds, salt, password, hash).is_ok()
            }
        }
    }

    /// The stored form; see the table above.
    pub fn encode(&self) -> String {
        let secret = match &self.secret {
            Secret::Empty => String::new(),
            Secret::Native(digest) => format!("*{}", hex(digest)),
            Secret::Pbkdf2 { rounds, salt, hash } => format!("pbkdf2:{rounds}:{}:{}", hex(salt), hex(hash)),
        };
        format!("{VERSION} {} {secret}", self.plugin.name())
    }

    /// Reads the stored form; the error says what is wrong with it.
    pub fn decode(stored: &[u8]) -> Result<Self, String> {
        let text = std::str::from_utf8(stored).map_err(|_| "not UTF-8".to_owned())?;
        let mut fields = text.splitn(3, ' ');
        let (version, plugin, secret) = (fields.next(), fields.next(), fields.next());
        if version != Some(VERSION) {
            return Err(format!("version {} is not known to this server", version.unwrap_or_default()));
        }
        let plugin = plugin.and_then(|name| Plugin::from_name(name.as_bytes())).ok_or("unknown plugin")?;
        let secret = decode_secret(secret.unwrap_or_default()).ok_or("malformed secret")?;
        Ok(Self { plugin, secret })
    }
}

fn decode_secret(text: &str) -> Option<Secret> {
    if text.is_empty() {
        return Some(Secret::Empty);
    }
    if let Some(digits) = text.strip_prefix('*') {
        return Some(Secret::Native(unhex(digits)?));
    }
    let mut fields = text.strip_prefix("pbkdf2:")?.split(':');
    let rounds = fields.next()?.parse().ok()?;
    let (salt, hash) = (unhex(fields.next()?)?, unhex(fields.next()?)?);
    fields.next().is_none().then_some(Secret::Pbkdf2 { rounds, salt, hash })
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex<const N: usize>(text: &str) -> Option<[u8; N]> {
    if text.len() != 2 * N || !text.is_ascii() {
        return None;
    }
    let mut out = [0; N];
    for (byte, at) in out.iter_mut().zip((0..).step_by(2)) {
        *byte = u8::from_str_radix(text.get(at..at + 2)?, 16).ok()?;
    }
    Some(out)
}

/// The accounts of the cluster, stored in its database.
#[derive(Clone)]
pub struct Users {
    db: Db,
    keyspace: Keyspace,
}

impl Users {
    /// Opens the accounts. A new cluster gets `root`: with `root_password`, or without any.
    /// Returns whether `root` was made now.
    pub async fn open(db: Db, root_password: Option<&[u8]>) -> Result<(Self, bool), SqlError> {
        let keyspace = db.keyspace("sys.users").await.map_err(storage)?;
        let users = Self { db, keyspace };
        if users.account("root").await?.is_some() {
            return Ok((users, false));
        }
        users.set_password("root", Plugin::default(), root_password.unwrap_or_default()).await?;
        Ok((users, true))
    }

    /// Reads an account. Always from the database: another session may have changed it.
    pub async fn account(&self, user: &str) -> Result<Option<Account>, SqlError> {
        let Some(stored) = self.db.get(&self.keyspace, user.as_bytes()).await.map_err(storage)? else {
            return Ok(None);
        };
        Account::decode(&stored)
            .map(Some)
            .map_err(|why| SqlError::new(1105, b"HY000", format!("account '{user}': {why}")))
    }

    /// ALTER USER ... IDENTIFIED: durable when it returns. Creates the account if it is missing: callers that must not
    /// ask [`Users::account`] first.
    pub async fn set_password(&self, user: &str, plugin: Plugin, password: &[u8]) -> Result<(), SqlError> {
        let password = password.to_vec();
        let account = tokio::task::spawn_blocking(move || Account::with_password(plugin, &password))
            .await
            .map_err(|e| SqlError::new(1105, b"HY000", format!("hashing the password: {e}")))??;
        self.db.put(&self.keyspace, user.as_bytes().to_vec(), account.encode()).await.map_err(storage)
    }
}

fn storage(error: holdfast::Error) -> SqlError {
    SqlError::new(1030, b"HY000", format!("accounts can't be read or written: {error}"))
}

/// The stateful part of authentication: digests remembered for the fast path, and the bound on full logins.
#[derive(Debug)]
pub struct Authenticator {
    /// By user: the account as it was when the password proved right, and SHA256(SHA256(password)).
    remembered: Mutex<HashMap<String, (Account, [u8; 32])>>,
    full_logins: Semaphore,
}

impl Default for Authenticator {
    fn default() -> Self {
        Self { remembered: Mutex::default(), full_logins: Semaphore::new(FULL_LOGINS) }
    }
}

impl Authenticator {
    /// The fast path of caching_sha2. `None`: nothing is remembered for this account as it is now.
    pub fn fast(&self, user: &str, account: &Account, response: &[u8], scramble: &[u8; SCRAMBLE_LEN]) -> Option<bool> {
        let remembered = self.remembered.lock();
        let (then, digest) = remembered.get(user)?;
        (then == account).then(|| auth::sha2_check(response, scramble, digest))
    }

    /// The full path, with the password in clear. Remembers the account if it is right.
    pub async fn full(&self, user: &str, account: &Account, password: Vec<u8>) -> bool {
        if password.len() > PASSWORD_MAX {
            return false;
        }
        let Ok(_permit) = self.full_logins.acquire().await else { return false };
        let (checked, digest) = (account.clone(), auth::sha2_digest(&password));
        let right = tokio::task::spawn_blocking(move || checked.verify(&password)).await.unwrap_or(false);
        if right {
            let mut remembered = self.remembered.lock();
            if remembered.len() >= REMEMBERED {
                remembered.clear();
            }
            remembered.insert(user.to_owned(), (account.clone(), digest));
        }
        right
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden_stored_forms() {
        let native = Account { plugin: Plugin::Native, secret: Secret::Native([0xab; 20]) };
        assert_eq!(native.encode(), format!("1 mysql_native_password *{}", "ab".repeat(20)));
        let rounds = NonZeroU32::new(9).unwrap();
        let sha2 =
            Account { plugin: Plugin::CachingSha2, secret: Secret::Pbkdf2 { rounds, salt: [1; 16], hash: [0xf0; 32] } };
        let stored = format!("1 caching_sha2_password pbkdf2:9:{}:{}", "01".repeat(16), "f0".repeat(32));
        assert_eq!(sha2.encode(), stored);
        for account in [native, sha2, Account::empty()] {
            assert_eq!(Account::decode(account.encode().as_bytes()), Ok(account));
        }
    }

    #[test]
    fn a_newer_or_broken_form_is_refused() {
        assert_eq!(Account::decode(b"2 x y").unwrap_err(), "version 2 is not known to this server");
        for bad in [
            "",
            "1",
            "1 nope ",
            "1 mysql_native_password *zz",
            "1 caching_sha2_password pbkdf2:0:00:00",
            "1 caching_sha2_password é",
        ] {
            assert!(Account::decode(bad.as_bytes()).is_err(), "{bad}");
        }
        assert!(Account::decode(&[0xff]).is_err());
    }

    #[tokio::test]
    async fn the_fast_path_follows_a_full_login_and_forgets_on_change() {
        let authenticator = Authenticator::default();
        let account = Account::with_password(Plugin::CachingSha2, b"one").unwrap();
        let challenge = auth::scramble().unwrap();
        let response = mysql_common::auth::plugins::caching_sha2_password::scramble_sha256(&challenge, b"one").unwrap();
        assert_eq!(authenticator.fast("root", &account, &response, &challenge), None);
        assert!(!authenticator.full("root", &account, b"two".to_vec()).await);
        assert!(authenticator.full("root", &account, b"one".to_vec()).await);
        assert_eq!(authenticator.fast("root", &account, &response, &challenge), Some(true));
        assert_eq!(authenticator.fast("root", &account, &[0; 32], &challenge), Some(false));
        let changed = Account::with_password(Plugin::CachingSha2, b"two").unwrap();
        assert_eq!(authenticator.fast("root", &changed, &response, &challenge), None);
    }
}
