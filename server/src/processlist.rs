//! The registry of connections: SHOW PROCESSLIST, KILL, the connection limit, idle timeouts and the drain at shutdown.
//!
//! A connection changes its phase by compare-and-swap, so that the sweeper and the drain never close one that has just
//! begun a command. Closing means aborting the connection's task: its session is dropped, and the transaction with it.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use tokio::{sync::Notify, task::AbortHandle};

use self::row::command_name;
use crate::wire::{consts::com, result::SqlError};

pub use self::row::{ProcessRow, Via, shown};

mod row;

/// What a connection is doing. `Closing` is final.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Login = 0,
    Idle = 1,
    Busy = 2,
    Closing = 3,
}

/// One connection, as others see it.
#[derive(Debug)]
pub struct Process {
    id: u32,
    born: Instant,
    phase: AtomicU8,
    command: AtomicU8,
    /// Milliseconds after `born` at which the phase began.
    since: AtomicU64,
    in_transaction: AtomicBool,
    wait_timeout_secs: AtomicU32,
    killed_query: AtomicBool,
    killed: AtomicBool,
    kill: Notify,
    task: OnceLock<AbortHandle>,
    who: Mutex<Who>,
    info: Mutex<Arc<[u8]>>,
}

#[derive(Clone, Debug, Default)]
struct Who {
    user: String,
    host: String,
    database: Option<String>,
    via: Via,
}

impl Process {
    /// CONNECTION_ID().
    pub fn id(&self) -> u32 {
        self.id
    }

    /// Fails with 1317 if the running statement or the connection was killed. Cheap: call it in every long loop.
    pub fn check(&self) -> Result<(), SqlError> {
        if self.killed.load(Ordering::Relaxed) {
            Err(interrupted().fatal())
        } else if self.killed_query.load(Ordering::Relaxed) {
            Err(interrupted())
        } else {
            Ok(())
        }
    }

    /// Resolves with the error of [`Process::check`] once this statement or connection is killed: race long waits with it.
    pub async fn interrupted(&self) -> SqlError {
        loop {
            let notified = self.kill.notified();
            if let Err(error) = self.check() {
                return error;
            }
            notified.await;
        }
    }

    /// The session's `wait_timeout`, for the sweeper.
    pub fn set_wait_timeout(&self, timeout: Duration) {
        self.wait_timeout_secs.store(timeout.as_secs().try_into().unwrap_or(u32::MAX), Ordering::Relaxed);
    }

    /// The statement that SHOW PROCESSLIST shows: see [`shown`].
    pub fn set_info(&self, shown: Arc<[u8]>) {
        *self.info.lock() = shown;
    }

    /// USE, for SHOW PROCESSLIST.
    pub fn set_database(&self, database: Option<&str>) {
        let mut who = self.who.lock();
        if who.database.as_deref() != database {
            who.database = database.map(str::to_owned);
        }
    }

    /// The current database.
    pub fn database(&self) -> Option<String> {
        self.who.lock().database.clone()
    }

    /// Which nodes the connection runs through, for SHOW PROCESSLIST.
    pub fn set_via(&self, via: Via) {
        self.who.lock().via = via;
    }

    /// The client's address.
    pub fn host(&self) -> String {
        self.who.lock().host.clone()
    }

    /// The client's address, if it was not known at first.
    pub fn set_host(&self, host: &str) {
        host.clone_into(&mut self.who.lock().host);
    }

    /// Login and change of user, for SHOW PROCESSLIST.
    pub fn set_user(&self, user: &str) {
        self.who.lock().user = user.to_owned();
    }

    /// Lets KILL and the drain end the connection's task. Set once, right after the task is spawned.
    pub fn set_task(&self, task: AbortHandle) {
        // A connection killed between its registration and this call ends here.
        if self.killed.load(Ordering::Acquire) {
            task.abort();
        }
        let _ = self.task.set(task);
    }

    /// A command begins. False if the connection is being closed (drain, timeout, KILL): answer 1053 and leave.
    pub fn begin(&self, command: u8, now: Instant) -> bool {
        let previous = self.phase.load(Ordering::Acquire);
        if previous == Phase::Closing as u8
            || self.phase.compare_exchange(previous, Phase::Busy as u8, Ordering::AcqRel, Ordering::Acquire).is_err()
        {
            return false;
        }
        self.killed_query.store(false, Ordering::Relaxed);
        self.command.store(command, Ordering::Relaxed);
        self.stamp(now);
        true
    }

    /// The command is answered; the connection waits for the next. False as in [`Process::begin`].
    pub fn end(&self, in_transaction: bool, now: Instant) -> bool {
        self.in_transaction.store(in_transaction, Ordering::Relaxed);
        self.command.store(com::SLEEP, Ordering::Relaxed);
        self.stamp(now);
        let previous = self.phase.load(Ordering::Acquire);
        previous != Phase::Closing as u8
            && self.phase.compare_exchange(previous, Phase::Idle as u8, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    fn stamp(&self, now: Instant) {
        self.since.store(now.saturating_duration_since(self.born).as_millis() as u64, Ordering::Relaxed);
    }

    fn in_phase(&self) -> Duration {
        self.born.elapsed().saturating_sub(Duration::from_millis(self.since.load(Ordering::Relaxed)))
    }

    /// Closes the connection if it is idle and `also` holds.
    fn close_idle(&self, also: impl FnOnce(&Self) -> bool) -> bool {
        self.phase.load(Ordering::Acquire) == Phase::Idle as u8
            && also(self)
            && self
                .phase
                .compare_exchange(Phase::Idle as u8, Phase::Closing as u8, Ordering::AcqRel, Ordering::Acquire)
                .is_ok()
            && {
                self.abort();
                true
            }
    }

    fn abort(&self) {
        if let Some(task) = self.task.get() {
            task.abort();
        }
    }

    fn row(&self) -> ProcessRow {
        let who = self.who.lock().clone();
        let phase = self.phase.load(Ordering::Acquire);
        let busy = phase == Phase::Busy as u8;
        let command = match phase {
            p if p == Phase::Login as u8 => "Connect",
            p if p == Phase::Closing as u8 || self.killed.load(Ordering::Relaxed) => "Killed",
            _ => command_name(self.command.load(Ordering::Relaxed)),
        };
        ProcessRow {
            id: self.id,
            user: if who.user.is_empty() { "unauthenticated user".to_owned() } else { who.user },
            host: who.host,
            database: who.database,
            command,
            seconds: self.in_phase().as_secs(),
            state: who.via.state(busy),
            info: busy.then(|| String::from_utf8_lossy(&self.info.lock()).into_owned()).filter(|sql| !sql.is_empty()),
        }
    }
}

fn interrupted() -> SqlError {
    SqlError::new(1317, b"70100", "Query execution was interrupted")
}

/// What KILL names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kill {
    /// The running statement.
    Query,
    /// The connection.
    Connection,
}

/// Every connection of this server.
#[derive(Debug)]
pub struct ProcessList {
    max_connections: usize,
    inner: Mutex<Inner>,
    /// Signalled whenever a connection leaves.
    left: Notify,
}

#[derive(Debug, Default)]
struct Inner {
    next_id: u32,
    draining: bool,
    processes: BTreeMap<u32, Arc<Process>>,
}

impl ProcessList {
    /// An empty list that takes so many connections.
    pub fn new(max_connections: usize) -> Arc<Self> {
        Arc::new(Self { max_connections, inner: Mutex::default(), left: Notify::new() })
    }

    /// Registers a connection; it stays until the returned guard is dropped. 1040 at the limit, 1053 while draining.
    pub fn register(self: &Arc<Self>, host: String) -> Result<Registered, SqlError> {
        let mut inner = self.inner.lock();
        if inner.draining {
            return Err(SqlError::new(1053, b"08S01", "Server shutdown in progress"));
        }
        if inner.processes.len() >= self.max_connections {
            return Err(SqlError::new(1040, b"08004", "Too many connections"));
        }
        let id = loop {
            inner.next_id = inner.next_id.wrapping_add(1).max(1);
            if !inner.processes.contains_key(&inner.next_id) {
                break inner.next_id;
            }
        };
        let process = Arc::new(Process {
            id,
            born: Instant::now(),
            phase: AtomicU8::new(Phase::Login as u8),
            command: AtomicU8::new(com::SLEEP),
            since: AtomicU64::new(0),
            in_transaction: AtomicBool::new(false),
            wait_timeout_secs: AtomicU32::new(28_800),
            killed_query: AtomicBool::new(false),
            killed: AtomicBool::new(false),
            kill: Notify::new(),
            task: OnceLock::new(),
            who: Mutex::new(Who { host, ..Who::default() }),
            info: Mutex::new([].into()),
        });
        inner.processes.insert(id, process.clone());
        Ok(Registered { list: self.clone(), process })
    }

    /// Rows of SHOW PROCESSLIST, by id.
    pub fn rows(&self) -> Vec<ProcessRow> {
        let processes: Vec<_> = self.inner.lock().processes.values().cloned().collect();
        processes.iter().map(|process| process.row()).collect()
    }

    /// Connections open, and of them those that run a command.
    pub fn counts(&self) -> (usize, usize) {
        let inner = self.inner.lock();
        let busy = |p: &&Arc<Process>| p.phase.load(Ordering::Relaxed) == Phase::Busy as u8;
        (inner.processes.len(), inner.processes.values().filter(busy).count())
    }

    /// Connections whose session runs on another node, and those whose client is there.
    pub fn forwarded(&self) -> (usize, usize) {
        let inner = self.inner.lock();
        inner.processes.values().fold((0, 0), |(to, from), process| match process.who.lock().via {
            Via::Here => (to, from),
            Via::To(_) => (to + 1, from),
            Via::From(_) => (to, from + 1),
        })
    }

    /// The limit.
    pub fn max_connections(&self) -> usize {
        self.max_connections
    }

    /// KILL. `by` is the connection that asks: killing itself is answered with 1317, after which it closes.
    pub fn kill(&self, by: u32, id: u64, what: Kill) -> Result<(), SqlError> {
        let process = u32::try_from(id).ok().and_then(|id| self.inner.lock().processes.get(&id).cloned());
        let Some(process) = process else {
            return Err(SqlError::new(1094, b"HY000", format!("Unknown thread id: {id}")));
        };
        process.killed_query.store(true, Ordering::Release);
        if what == Kill::Connection {
            process.killed.store(true, Ordering::Release);
            if process.id != by {
                process.abort();
            }
        }
        process.kill.notify_waiters();
        if process.id == by { process.check() } else { Ok(()) }
    }

    /// Closes connections that have been idle for longer than their `wait_timeout`. Returns how many.
    pub fn sweep(&self) -> usize {
        let processes: Vec<_> = self.inner.lock().processes.values().cloned().collect();
        let expired =
            |p: &Process| p.in_phase() > Duration::from_secs(p.wait_timeout_secs.load(Ordering::Relaxed).into());
        processes.iter().filter(|process| process.close_idle(expired)).count()
    }

    /// Waits until no connection is left.
    pub async fn empty(&self) {
        while self.counts().0 > 0 {
            // One that leaves between the two looks is found by the next round.
            let _ = tokio::time::timeout(Duration::from_millis(20), self.left.notified()).await;
        }
    }

    /// Refuses new connections, closes those that are idle outside a transaction as they become so, and waits until all
    /// are gone or `limit` has passed; then closes the rest. Returns how many it had to cut.
    pub async fn drain(&self, limit: Duration) -> usize {
        self.inner.lock().draining = true;
        let finish = async {
            loop {
                let left = self.left.notified();
                let processes: Vec<_> = self.inner.lock().processes.values().cloned().collect();
                if processes.is_empty() {
                    return;
                }
                for process in &processes {
                    process.close_idle(|p| !p.in_transaction.load(Ordering::Relaxed));
                }
                // Connections that become idle are found by the next round.
                let _ = tokio::time::timeout(Duration::from_millis(20), left).await;
            }
        };
        if tokio::time::timeout(limit, finish).await.is_ok() {
            return 0;
        }
        let processes: Vec<_> = self.inner.lock().processes.values().cloned().collect();
        for process in &processes {
            process.abort();
        }
        processes.len()
    }
}

/// A connection's place in the list, given back on drop.
#[derive(Debug)]
pub struct Registered {
    list: Arc<ProcessList>,
    process: Arc<Process>,
}

impl Registered {
    /// The connection itself.
    pub fn process(&self) -> &Arc<Process> {
        &self.process
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        self.list.inner.lock().processes.remove(&self.process.id);
        self.list.left.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::{row::INFO_MAX, *};

    #[test]
    fn the_limit_is_1040_and_a_place_comes_back_on_drop() {
        let list = ProcessList::new(1);
        let first = list.register("a".into()).unwrap();
        assert_eq!(list.register("b".into()).unwrap_err().code, 1040);
        drop(first);
        assert_eq!(list.register("b".into()).unwrap().process().id(), 2);
    }

    #[test]
    fn kill_query_interrupts_until_the_next_command() {
        let list = ProcessList::new(8);
        let (a, b) = (list.register("a".into()).unwrap(), list.register("b".into()).unwrap());
        assert!(b.process().begin(com::QUERY, Instant::now()));
        list.kill(a.process().id(), b.process().id().into(), Kill::Query).unwrap();
        assert_eq!(b.process().check().unwrap_err().code, 1317);
        assert!(b.process().begin(com::QUERY, Instant::now()));
        assert!(b.process().check().is_ok());
        assert_eq!(list.kill(1, 99, Kill::Query).unwrap_err().code, 1094);
        let own = list.kill(a.process().id(), a.process().id().into(), Kill::Connection).unwrap_err();
        assert!(own.fatal && own.code == 1317);
    }

    #[tokio::test]
    async fn kill_wakes_a_waiting_statement() {
        let list = ProcessList::new(8);
        let waiter = list.register("a".into()).unwrap();
        let process = waiter.process().clone();
        assert!(process.begin(com::QUERY, Instant::now()));
        let task = tokio::spawn(async move { process.interrupted().await.code });
        tokio::task::yield_now().await;
        list.kill(0, waiter.process().id().into(), Kill::Query).unwrap();
        assert_eq!(task.await.unwrap(), 1317);
    }

    #[tokio::test]
    async fn drain_spares_transactions_and_cuts_them_at_the_limit() {
        let list = ProcessList::new(8);
        let spawn = |in_transaction| {
            let guard = list.register("a".into()).unwrap();
            let process = guard.process().clone();
            assert!(process.begin(com::QUERY, Instant::now()) && process.end(in_transaction, Instant::now()));
            let task = tokio::spawn(async move {
                let _guard = guard;
                std::future::pending::<()>().await;
            });
            process.set_task(task.abort_handle());
            task
        };
        let (idle, busy) = (spawn(false), spawn(true));
        assert_eq!(list.drain(Duration::from_millis(100)).await, 1);
        assert!(idle.await.unwrap_err().is_cancelled());
        assert!(busy.await.unwrap_err().is_cancelled());
        assert_eq!(list.register("c".into()).unwrap_err().code, 1053);
    }

    #[tokio::test]
    async fn sweep_closes_what_has_idled_too_long() {
        let list = ProcessList::new(8);
        let guard = list.register("a".into()).unwrap();
        let process = guard.process().clone();
        assert!(process.begin(com::PING, Instant::now()) && process.end(false, Instant::now()));
        assert_eq!(list.sweep(), 0);
        process.set_wait_timeout(Duration::ZERO);
        while process.in_phase().is_zero() {
            std::hint::spin_loop();
        }
        assert_eq!(list.sweep(), 1);
        assert!(!process.begin(com::PING, Instant::now()), "a connection being closed takes no further command");
    }

    #[test]
    fn rows_show_what_runs() {
        let list = ProcessList::new(8);
        let guard = list.register("10.0.0.1:5".into()).unwrap();
        let process = guard.process();
        process.set_user("root");
        process.set_database(Some("shop"));
        assert!(process.begin(com::QUERY, Instant::now()));
        process.set_info(shown(&[b'x'; 5000]));
        let row = list.rows().remove(0);
        assert_eq!((row.command, row.user.as_str(), row.database.as_deref()), ("Query", "root", Some("shop")));
        assert_eq!(row.info.map(|sql| sql.len()), Some(INFO_MAX));
        assert_eq!((row.state.as_str(), list.forwarded()), ("executing", (0, 0)));
        process.set_via(Via::To(3));
        assert_eq!((list.rows().remove(0).state.as_str(), list.forwarded()), ("forwarded to node 3", (1, 0)));
    }
}
