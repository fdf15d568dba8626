//! What the bucket costs, at the list price of S3 Standard (us-east-1, November 2026).

use crate::store::{Kind, Requests};

/// Dollars per PUT or LIST request.
pub const PUT_DOLLARS: f64 = 0.005 / 1000.0;
/// Dollars per GET or HEAD request.
pub const GET_DOLLARS: f64 = 0.0004 / 1000.0;
/// Dollars per GB (10^9 bytes) stored for a month.
pub const GB_MONTH_DOLLARS: f64 = 0.023;

/// Dollars for the requests. Transfer inside the region and deletes are free.
pub fn request_dollars(requests: &Requests) -> f64 {
    let count = |kind| requests.of_kind(kind) as f64;
    let writes = count(Kind::Put) + count(Kind::List);
    let reads = count(Kind::Get) + count(Kind::Head);
    writes * PUT_DOLLARS + reads * GET_DOLLARS
}

/// Dollars a month for keeping `bytes`.
pub fn storage_dollars_per_month(bytes: u64) -> f64 {
    bytes as f64 / 1e9 * GB_MONTH_DOLLARS
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Cause, RequestCount};

    #[test]
    fn list_price() {
        let count = |kind, requests| RequestCount { kind, cause: Cause::Page, requests, bytes: 0, errors: 0 };
        let requests = Requests(vec![
            count(Kind::Get, 1_000_000),
            count(Kind::Put, 1000),
            count(Kind::List, 1000),
            count(Kind::Delete, 5000),
        ]);
        assert!((request_dollars(&requests) - 0.41).abs() < 1e-9);
        assert!((storage_dollars_per_month(1_000_000_000_000) - 23.0).abs() < 1e-9);
    }
}
