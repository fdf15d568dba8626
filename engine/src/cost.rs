//! What the bucket costs.

mod spending;

pub use spending::{Period, Spending};

use crate::{
    error::{Error, Result},
    store::{Kind, Requests},
};

/// What a provider charges, in dollars. The default is the list price of S3 Standard (us-east-1, November 2026).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Prices {
    /// Dollars for 1000 PUT or LIST requests.
    pub put_per_1000: f64,
    /// Dollars for 1000 GET or HEAD requests.
    pub get_per_1000: f64,
    /// Dollars for a GB (10^9 bytes) that is stored for a month.
    pub gb_month: f64,
}

impl Default for Prices {
    fn default() -> Self {
        Self { put_per_1000: 0.005, get_per_1000: 0.0004, gb_month: 0.023 }
    }
}

impl Prices {
    /// Dollars for one request. Transfer inside the region and deletes are free.
    pub fn request(&self, kind: Kind) -> f64 {
        match kind {
            Kind::Put | Kind::List => self.put_per_1000 / 1000.0,
            Kind::Get | Kind::Head => self.get_per_1000 / 1000.0,
            Kind::Delete => 0.0,
        }
    }

    /// Dollars for all of these.
    pub fn requests(&self, requests: &Requests) -> f64 {
        requests.0.iter().map(|count| count.requests as f64 * self.request(count.kind)).sum()
    }

    /// Dollars a month for keeping `bytes`.
    pub fn storage_per_month(&self, bytes: u64) -> f64 {
        bytes as f64 / 1e9 * self.gb_month
    }

    /// Refuses what is no price.
    ///
    /// # Errors
    /// `Invalid`.
    pub(crate) fn check(&self) -> Result<()> {
        let all =
            [("put_per_1000", self.put_per_1000), ("get_per_1000", self.get_per_1000), ("gb_month", self.gb_month)];
        match all.into_iter().find(|(_, price)| !price.is_finite() || *price < 0.0) {
            Some((name, price)) => {
                Err(Error::Invalid(format!("price {name} is {price}; it must be 0 or more dollars")))
            }
            None => Ok(()),
        }
    }
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
        let prices = Prices::default();
        assert!((prices.requests(&requests) - 0.41).abs() < 1e-9);
        assert!((prices.storage_per_month(1_000_000_000_000) - 23.0).abs() < 1e-9);
        assert!(prices.check().is_ok() && Prices { gb_month: f64::NAN, ..prices }.check().is_err());
    }
}
