//! Owns the MySQL errors and warnings that the SQL front raises, one constructor for each code.

use crate::wire::result::SqlError;

/// Result of the SQL front: errors are ready for the client.
pub type Result<T> = std::result::Result<T, SqlError>;

/// A note or warning for SHOW WARNINGS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning {
    /// MySQL code, such as 1265.
    pub code: u16,
    /// What the client reads.
    pub message: String,
}

impl From<SqlError> for Warning {
    fn from(error: SqlError) -> Self {
        Self { code: error.code, message: error.message }
    }
}

/// An error with the SQLSTATE that belongs to its code.
pub fn sql_error(code: u16, message: impl Into<String>) -> SqlError {
    SqlError { code, sqlstate: *sqlstate(code), message: message.into(), fatal: false }
}

/// SQLSTATE of a MySQL code; `HY000` where MySQL has none of its own.
pub fn sqlstate(code: u16) -> &'static [u8; 5] {
    match code {
        1022 | 1048 | 1052 | 1062 | 1169 | 1216 | 1217 | 1451 | 1452 | 1557 | 1586 | 3819 => b"23000",
        1064 | 1065 | 1149 | 1115 | 1055 | 1072 | 1103 | 1149..=1150 | 1230 | 1231 | 1239 | 1286 => match code {
            1115 | 1055 | 1072 | 1103 | 1149 | 1150 | 1064 | 1065 | 1239 | 1286 | 1230 | 1231 => b"42000",
            _ => b"HY000",
        },
        1044
        | 1049
        | 1059
        | 1061
        | 1067
        | 1068
        | 1069
        | 1070
        | 1071
        | 1073
        | 1074
        | 1075
        | 1083
        | 1084
        | 1090
        | 1091
        | 1101
        | 1102
        | 1104
        | 1110
        | 1112
        | 1113
        | 1118
        | 1120
        | 1121
        | 1131
        | 1132
        | 1138..=1143
        | 1145
        | 1147
        | 1148
        | 1161..=1164
        | 1166
        | 1167
        | 1171
        | 1172
        | 1173
        | 1177
        | 1178
        | 1203
        | 1211
        | 1226..=1228
        | 1232
        | 1234
        | 1235
        | 1247..=1250
        | 1252
        | 1253
        | 1280
        | 1281
        | 1304
        | 1305
        | 1318
        | 1327
        | 1415
        | 1425
        | 1426
        | 1427
        | 1439
        | 1461
        | 1463
        | 1582
        | 1583
        | 1584
        | 1641 => b"42000",
        1050 => b"42S01",
        1051 | 1146 | 1109 => b"42S02",
        1060 => b"42S21",
        1054 => b"42S22",
        1082 => b"42S12",
        1136 | 1058 | 1222 | 1241 | 1242 => b"21000",
        1063 | 1056 | 1066 => b"42000",
        1045 => b"28000",
        1046 => b"3D000",
        1040 => b"08004",
        1043 | 1047 | 1053 | 1080 => b"08S01",
        1264 | 1690 => b"22003",
        1292 | 1411 | 1441 => b"22007",
        1365 => b"22012",
        1406 => b"22001",
        1213 => b"40001",
        1305..=1306 => b"42000",
        1317 => b"70100",
        1792 => b"25006",
        1568 => b"25001",
        3140..=3158 => b"22032",
        1325 | 1326 => b"24000",
        1243 | 1210 => b"HY000",
        _ => b"HY000",
    }
}

/// 1690: a result does not fit its type, such as `BIGINT value is out of range in '(1 + x)'`.
pub fn out_of_range(kind: &str, expression: &str) -> SqlError {
    sql_error(1690, format!("{kind} value is out of range in '{expression}'"))
}

/// 1054.
pub fn unknown_column(name: &str, clause: &str) -> SqlError {
    sql_error(1054, format!("Unknown column '{name}' in '{clause}'"))
}

/// 1305.
pub fn unknown_function(name: &str) -> SqlError {
    sql_error(1305, format!("FUNCTION {name} does not exist"))
}

/// 1582.
pub fn wrong_argument_count(name: &str) -> SqlError {
    sql_error(1582, format!("Incorrect parameter count in the call to native function '{name}'"))
}

/// 1210.
pub fn wrong_arguments(name: &str) -> SqlError {
    sql_error(1210, format!("Incorrect arguments to {name}"))
}

/// 1235: valid MySQL that this server does not do.
pub fn unsupported(what: &str) -> SqlError {
    sql_error(1235, format!("This version of Holdfast doesn't yet support '{what}'"))
}

/// 1292 as a warning or an error: text that is not a clean number, date or time.
pub fn truncated_wrong_value(kind: &str, text: &[u8]) -> SqlError {
    sql_error(1292, format!("Truncated incorrect {kind} value: '{}'", shown(text)))
}

/// Input text as a message may carry it: lossy UTF-8, at most 128 characters.
pub fn shown(text: &[u8]) -> String {
    let cut = &text[..text.len().min(512)];
    String::from_utf8_lossy(cut).chars().take(128).collect()
}
