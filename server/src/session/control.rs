//! Transaction statements, accounts and FLUSH.

use super::{Result, Session, state::Settings};
use crate::{
    errmap::{self, error},
    sql::ast::{AlterUser, Transaction},
    wire::auth::Plugin,
};

impl Session {
    pub(super) async fn transaction(&mut self, t: &Transaction, settings: &Settings) -> Result<()> {
        match t {
            Transaction::Begin { consistent_snapshot, read_only } => {
                self.tx.commit().await?;
                let catalog = &self.state.shared.catalog;
                let active = self.tx.begin(catalog.db(), settings, *read_only)?;
                if *consistent_snapshot {
                    // Any consistent read takes the snapshot.
                    active.consistent(catalog, 0)?.get(&catalog.locks, b"snapshot").await?;
                }
            }
            Transaction::Commit { chain, release } => {
                let read_only = self.tx.is_open().then(|| self.tx.is_read_only());
                self.tx.commit().await?;
                self.chain_or_release(*chain, *release, read_only, settings)?;
            }
            Transaction::Rollback { chain, release } => {
                let read_only = self.tx.is_open().then(|| self.tx.is_read_only());
                self.tx.rollback();
                self.chain_or_release(*chain, *release, read_only, settings)?;
            }
            Transaction::Savepoint(name) => {
                if !settings.autocommit && !self.tx.is_open() {
                    self.tx.for_statement(self.state.shared.catalog.db(), settings, false)?;
                }
                self.tx.savepoint(name);
            }
            Transaction::RollbackTo(name) => self.tx.rollback_to(name)?,
            Transaction::Release(name) => self.tx.release(name)?,
            Transaction::LockTables(_) => return Err(errmap::unsupported("LOCK TABLES")),
            // Nothing can be locked by LOCK TABLES, so there is nothing to unlock.
            Transaction::UnlockTables => {}
        }
        Ok(())
    }

    fn chain_or_release(
        &mut self,
        chain: bool,
        release: bool,
        read_only: Option<bool>,
        settings: &Settings,
    ) -> Result<()> {
        if release {
            return Err(errmap::unsupported("COMMIT or ROLLBACK ... RELEASE"));
        }
        if chain {
            self.tx.begin(self.state.shared.catalog.db(), settings, read_only)?;
        }
        Ok(())
    }

    /// ALTER USER ... IDENTIFIED BY and SET PASSWORD.
    pub(super) async fn alter_users(&self, changes: &[AlterUser]) -> Result<()> {
        let users = &self.state.shared.users;
        for change in changes {
            let name = change.user.as_ref().map_or(self.state.login.user.as_str(), |(user, _)| user);
            let account = users.account(name).await?;
            let account =
                account.ok_or_else(|| error(1396, format!("Operation ALTER USER failed for '{name}'@'%'")))?;
            let plugin = match &change.plugin {
                None => account.plugin,
                Some(given) => {
                    let found = Plugin::from_name(given.as_bytes());
                    found.ok_or_else(|| error(1524, format!("Plugin '{given}' is not loaded")))?
                }
            };
            let Some(password) = &change.password else {
                return Err(errmap::unsupported("ALTER USER without IDENTIFIED BY"));
            };
            users.set_password(name, plugin, password.as_bytes()).await?;
        }
        Ok(())
    }

    /// FLUSH: what it asks is already so for statistics, privileges and tables without LOCK.
    pub(super) fn flush(&self, words: &[String]) -> Result<()> {
        let upper: Vec<String> = words.iter().map(|w| w.to_ascii_uppercase()).collect();
        let words: Vec<&str> =
            upper.iter().map(String::as_str).filter(|w| !matches!(*w, "LOCAL" | "NO_WRITE_TO_BINLOG")).collect();
        match words.as_slice() {
            // Accounts are read from the database at each login; open tables hold no unwritten state.
            ["PRIVILEGES"] | ["TABLES"] | ["TABLE"] => Ok(()),
            other => Err(errmap::unsupported(format!("FLUSH {}", other.join(" ")))),
        }
    }
}
