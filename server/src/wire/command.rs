//! Commands, decoded from a packet without copying.

use super::{
    codec::{Malformed, Reader},
    consts::com,
};

/// One command of a client.
#[derive(Debug, PartialEq, Eq)]
pub enum Command<'a> {
    /// COM_QUIT.
    Quit,
    /// COM_INIT_DB: a database.
    InitDb(&'a [u8]),
    /// COM_QUERY: one or more statements.
    Query(&'a [u8]),
    /// COM_FIELD_LIST.
    FieldList {
        /// The table.
        table: &'a [u8],
        /// Which of its columns; empty for all.
        wildcard: &'a [u8],
    },
    /// COM_STATISTICS.
    Statistics,
    /// COM_PROCESS_KILL: a connection.
    Kill(u32),
    /// COM_PING.
    Ping,
    /// The body; see [`super::handshake::decode_change_user`].
    ChangeUser(&'a [u8]),
    /// COM_STMT_PREPARE: a statement.
    Prepare(&'a [u8]),
    /// `params` follows the iteration count; see [`super::params`].
    Execute {
        /// The statement.
        id: u32,
        /// Its parameters, encoded.
        params: &'a [u8],
    },
    /// COM_STMT_SEND_LONG_DATA: part of a parameter's value, sent ahead.
    LongData {
        /// The statement.
        id: u32,
        /// Number of the parameter.
        param: u16,
        /// What is added to its value.
        data: &'a [u8],
    },
    /// COM_STMT_CLOSE.
    CloseStatement(u32),
    /// COM_STMT_RESET.
    ResetStatement(u32),
    /// COM_SET_OPTION: 0 turns multi-statements on, 1 off.
    SetOption(u16),
    /// COM_STMT_FETCH.
    Fetch {
        /// The statement.
        id: u32,
    },
    /// COM_RESET_CONNECTION.
    ResetConnection,
    /// A command that this server does not have (1047).
    Unknown(u8),
}

/// Decodes a command packet. An empty packet is malformed.
pub fn decode(packet: &[u8]) -> Result<Command<'_>, Malformed> {
    let mut r = Reader::new(packet);
    Ok(match r.u8("command")? {
        com::QUIT => Command::Quit,
        com::INIT_DB => Command::InitDb(r.rest()),
        com::QUERY => Command::Query(r.rest()),
        com::FIELD_LIST => Command::FieldList { table: r.nul_bytes("table name")?, wildcard: r.rest() },
        com::STATISTICS => Command::Statistics,
        com::PROCESS_KILL => Command::Kill(r.u32("connection id")?),
        com::PING => Command::Ping,
        com::CHANGE_USER => Command::ChangeUser(r.rest()),
        com::STMT_PREPARE => Command::Prepare(r.rest()),
        com::STMT_EXECUTE => {
            let id = r.u32("statement id")?;
            // Cursor flags: a server may always answer with the whole result, as this one does.
            r.u8("cursor flags")?;
            r.u32("iteration count")?;
            Command::Execute { id, params: r.rest() }
        }
        com::STMT_SEND_LONG_DATA => {
            Command::LongData { id: r.u32("statement id")?, param: r.u16("parameter number")?, data: r.rest() }
        }
        com::STMT_CLOSE => Command::CloseStatement(r.u32("statement id")?),
        com::STMT_RESET => Command::ResetStatement(r.u32("statement id")?),
        com::SET_OPTION => Command::SetOption(r.u16("option")?),
        com::STMT_FETCH => {
            let id = r.u32("statement id")?;
            r.u32("row count")?;
            Command::Fetch { id }
        }
        com::RESET_CONNECTION => Command::ResetConnection,
        other => Command::Unknown(other),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn commands_are_told_apart() {
        assert_eq!(decode(b"\x03SELECT 1"), Ok(Command::Query(b"SELECT 1")));
        assert_eq!(decode(&[23, 1, 0, 0, 0, 1, 1, 0, 0, 0, 9]), Ok(Command::Execute { id: 1, params: &[9] }));
        assert_eq!(decode(&[24, 1, 0, 0, 0, 2, 0, 7]), Ok(Command::LongData { id: 1, param: 2, data: &[7] }));
        assert_eq!(decode(&[5, 1]), Ok(Command::Unknown(5)));
        assert_eq!(decode(&[25, 1]), Err(Malformed("statement id")));
        assert_eq!(decode(&[]), Err(Malformed("command")));
    }

    proptest! {
        #[test]
        fn any_packet_decodes_or_is_malformed(packet in prop::collection::vec(any::<u8>(), 0..40)) {
            let _ = decode(&packet);
        }
    }
}
