//! SHOW REPLICA STATUS: what routers read to tell a follower that keeps up from one that does not.

use super::{Result, Table};
use crate::{errmap, session::state::State, sql::value::Value};

const COLUMNS: [&str; 8] = [
    "Replica_IO_State",
    "Source_Host",
    "Source_Port",
    "Replica_IO_Running",
    "Replica_SQL_Running",
    "Last_Error",
    "Seconds_Behind_Source",
    "Seconds_Behind_Master",
];

/// One row on a follower, none on the leader or in a database of one node.
pub fn status(state: &State) -> Result<Table> {
    let db = state.shared.catalog.db();
    if db.is_single() || db.term() != 0 {
        return Ok(Table::new(&COLUMNS, Vec::new()));
    }
    let leader = db.leader();
    let sql = leader.as_ref().and_then(|(_, info)| info.as_ref()).map(|info| info.sql.as_str()).unwrap_or_default();
    let (host, port) = sql.rsplit_once(':').unwrap_or((sql, ""));
    let cluster = db.cluster().map_err(errmap::from_engine)?;
    let heard = cluster.members.iter().find(|member| Some(member.id) == cluster.leader).and_then(|m| m.heard_ago);
    let text = |text: &str| Value::Str(text.as_bytes().to_vec().into());
    let connected = heard.is_some();
    // Heard of just now and with everything applied that it knows of: not behind. Else as far as the leader's last word.
    let behind = match heard {
        Some(ago) => Value::UInt(ago.as_secs()),
        None => Value::Null,
    };
    let yes_no = |yes| text(if yes { "Yes" } else { "No" });
    let waiting = if connected { "Waiting for source to send event" } else { "Connecting to source" };
    Ok(Table::new(
        &COLUMNS,
        vec![vec![
            text(waiting),
            text(host),
            port.parse().map_or(Value::Null, Value::UInt),
            yes_no(connected),
            yes_no(true),
            text(""),
            behind.clone(),
            behind,
        ]],
    ))
}
