//! The lock table by its public behaviour.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;

use super::*;
use crate::LockMode::{Exclusive, Shared};

const LONG: Option<Duration> = Some(Duration::from_secs(100));

fn key(name: &'static str) -> Bytes {
    Bytes::from_static(name.as_bytes())
}

fn table() -> Arc<LockTable> {
    Arc::new(LockTable::new())
}

fn txn(table: &Arc<LockTable>) -> LockSet {
    LockSet::new(table, 100)
}

/// Polls a future once: it must be waiting for something.
macro_rules! waits {
    ($future:expr) => {
        assert!(futures::poll!($future.as_mut()).is_pending())
    };
}

#[tokio::test]
async fn shared_locks_go_together_and_exclusive_ones_alone() {
    let table = table();
    let (mut a, mut b, mut c) = (txn(&table), txn(&table), txn(&table));
    a.lock(key("k"), Shared, None).await.unwrap();
    b.lock(key("k"), Shared, None).await.unwrap();
    assert_eq!(c.lock(key("k"), Exclusive, None).await, Err(Error::WouldBlock));
    drop(a);
    drop(b);
    c.lock(key("k"), Exclusive, None).await.unwrap();
    assert!(c.holds_exclusive(b"k"));
    drop(c);
    assert_eq!(table.stats().held, 0);
}

#[tokio::test]
async fn waiters_are_served_in_order_of_arrival() {
    let table = table();
    let (mut a, mut b, mut c) = (txn(&table), txn(&table), txn(&table));
    a.lock(key("k"), Shared, None).await.unwrap();
    let mut second = Box::pin(b.lock(key("k"), Exclusive, LONG));
    waits!(second);
    // Compatible with the holder, but behind an exclusive request.
    let mut third = Box::pin(c.lock(key("k"), Shared, LONG));
    waits!(third);
    drop(a);
    second.await.unwrap();
    waits!(third);
    drop(b);
    third.await.unwrap();
}

#[tokio::test]
async fn the_request_that_closes_a_cycle_is_the_victim() {
    let table = table();
    let (mut a, mut b) = (txn(&table), txn(&table));
    a.lock(key("x"), Exclusive, None).await.unwrap();
    b.lock(key("y"), Exclusive, None).await.unwrap();
    let mut first = Box::pin(a.lock(key("y"), Exclusive, LONG));
    waits!(first);
    assert_eq!(b.lock(key("x"), Exclusive, LONG).await, Err(Error::Deadlock));
    drop(b);
    first.await.unwrap();
    assert_eq!(table.stats().deadlocks, 1);
}

#[tokio::test]
async fn two_upgrades_of_one_row_are_a_deadlock() {
    let table = table();
    let (mut a, mut b) = (txn(&table), txn(&table));
    a.lock(key("k"), Shared, None).await.unwrap();
    b.lock(key("k"), Shared, None).await.unwrap();
    let mut first = Box::pin(a.lock(key("k"), Exclusive, LONG));
    waits!(first);
    assert_eq!(b.lock(key("k"), Exclusive, LONG).await, Err(Error::Deadlock));
    drop(b);
    first.await.unwrap();
    drop(a);
    assert_eq!(table.stats().held, 0);
}

#[tokio::test]
async fn an_upgrade_goes_before_the_queue() {
    let table = table();
    let (mut a, mut b) = (txn(&table), txn(&table));
    a.lock(key("k"), Shared, None).await.unwrap();
    let mut second = Box::pin(b.lock(key("k"), Exclusive, LONG));
    waits!(second);
    a.lock(key("k"), Exclusive, None).await.unwrap();
    waits!(second);
    drop(a);
    second.await.unwrap();
}

#[tokio::test]
async fn a_wait_ends_at_its_timeout_and_leaves_no_ghost() {
    let table = table();
    let (mut a, mut b, mut c) = (txn(&table), txn(&table), txn(&table));
    a.lock(key("k"), Exclusive, None).await.unwrap();
    assert_eq!(b.lock(key("k"), Exclusive, Some(Duration::from_millis(10))).await, Err(Error::LockTimeout));
    let mut third = Box::pin(c.lock(key("k"), Exclusive, LONG));
    waits!(third);
    drop(a);
    third.await.unwrap();
    drop((b, c));
    assert_eq!(table.stats().held, 0);
}

#[tokio::test]
async fn a_dropped_wait_lets_the_next_one_in_and_its_edges_go() {
    let table = table();
    let (mut a, mut b, mut c) = (txn(&table), txn(&table), txn(&table));
    a.lock(key("k"), Shared, None).await.unwrap();
    b.lock(key("other"), Exclusive, None).await.unwrap();
    let mut waiting = Box::pin(b.lock(key("k"), Exclusive, LONG));
    waits!(waiting);
    let mut behind = Box::pin(c.lock(key("k"), Shared, LONG));
    waits!(behind);
    drop(waiting);
    behind.await.unwrap();
    // Had the edge c -> b stayed, this would be called a deadlock.
    let mut again = Box::pin(c.lock(key("other"), Exclusive, LONG));
    waits!(again);
    drop(b);
    again.await.unwrap();
}

#[tokio::test]
async fn a_grant_to_a_dropped_wait_is_cleaned_up_by_the_transaction() {
    let table = table();
    let (mut a, mut b) = (txn(&table), txn(&table));
    a.lock(key("k"), Exclusive, None).await.unwrap();
    let mut waiting = Box::pin(b.lock(key("k"), Exclusive, LONG));
    waits!(waiting);
    drop(a);
    // Granted, but nobody looked.
    drop(waiting);
    drop(b);
    let mut c = txn(&table);
    c.lock(key("k"), Exclusive, None).await.unwrap();
}

#[tokio::test]
async fn the_number_of_locks_is_bounded() {
    let table = table();
    let mut a = LockSet::new(&table, 1);
    a.lock(key("a"), Shared, None).await.unwrap();
    let error = a.lock(key("b"), Shared, None).await.unwrap_err();
    assert_eq!(error, Error::TooLarge { what: "row locks of a transaction", limit: 1 });
}

#[tokio::test]
async fn at_the_limit_held_rows_may_be_locked_again_and_upgraded() {
    let table = table();
    let mut a = LockSet::new(&table, 2);
    a.lock(key("a"), Shared, None).await.unwrap();
    a.lock(key("b"), Exclusive, None).await.unwrap();
    a.lock(key("b"), Exclusive, LONG).await.unwrap();
    a.lock(key("a"), Exclusive, None).await.unwrap();
    assert!(a.holds_exclusive(b"a"));
    assert!(matches!(a.lock(key("c"), Shared, None).await, Err(Error::TooLarge { limit: 2, .. })));
    assert_eq!(table.stats().held, 2);
}
