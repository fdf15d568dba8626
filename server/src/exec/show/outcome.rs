//! SHOW TRANSACTION OUTCOME: what became of a transaction that its client had named (rule 12), and how it is named.

use holdfast::TxnStatus;

use super::{Result, Table};
use crate::{
    errmap::{self, error},
    session::state::State,
    sql::value::Value,
};

const COLUMNS: [&str; 3] = ["Transaction_id", "Outcome", "Commit_token"];

/// A transaction id: a UUID, or 32 hexadecimal digits.
pub fn id(text: &str) -> Result<u128> {
    let digits: String = text.chars().filter(|c| *c != '-').collect();
    let hex = digits.len() == 32 && digits.bytes().all(|b| b.is_ascii_hexdigit());
    let parsed = if hex { u128::from_str_radix(&digits, 16).ok() } else { None };
    parsed.ok_or_else(|| error(1411, format!("Incorrect transaction id: '{text}' is not a UUID")))
}

/// One row: `committed` with its token, `rejected`, or `not found`.
pub async fn outcome(text: &str, state: &State) -> Result<Table> {
    let status = state.shared.catalog.db().txn_status(id(text)?).await.map_err(errmap::from_engine)?;
    let (outcome, token) = match status {
        TxnStatus::Committed { token } => ("committed", Value::UInt(token)),
        TxnStatus::Rejected => ("rejected", Value::Null),
        TxnStatus::NotFound => ("not found", Value::Null),
    };
    let value = |text: &str| Value::Str(text.as_bytes().to_vec().into());
    Ok(Table::new(&COLUMNS, vec![vec![value(text), value(outcome), token]]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_uuids() {
        assert_eq!(id("00000000-0000-0000-0000-0000000000ff").unwrap(), 255);
        assert_eq!(id("000000000000000000000000000000FF").unwrap(), 255);
        for bad in ["", "ff", "00000000-0000-0000-0000-0000000000fg", "+0000000000000000000000000000000", "ä"] {
            assert_eq!(id(bad).unwrap_err().code, 1411, "{bad}");
        }
    }
}
