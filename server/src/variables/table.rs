//! The table of system variables, sorted by name as SHOW VARIABLES prints them.

use super::{Access, Kind, Scope, Variable};

use Access::{Fixed, ReadOnly, ReadWrite};
use Kind::{Bool, Charset, Collation, Enum, Int, Set, Text, TimeZone};
use Scope::{Both, Global, Session};

const fn var(name: &'static str, scope: Scope, access: Access, kind: Kind, default: &'static str) -> Variable {
    Variable { name, scope, access, kind, default }
}

const fn int(min: i64, max: i64) -> Kind {
    Int { min, max }
}

/// The version string: recent enough for clients' modern paths, and never naming another server.
pub const VERSION: &str = crate::wire::handshake::SERVER_VERSION;

const ISOLATION: Kind = Enum(&["READ-UNCOMMITTED", "READ-COMMITTED", "REPEATABLE-READ", "SERIALIZABLE"]);
const SQL_MODES: &[&str] = &[
    "ONLY_FULL_GROUP_BY",
    "STRICT_TRANS_TABLES",
    "STRICT_ALL_TABLES",
    "NO_ZERO_IN_DATE",
    "NO_ZERO_DATE",
    "ERROR_FOR_DIVISION_BY_ZERO",
    "NO_ENGINE_SUBSTITUTION",
    "NO_AUTO_VALUE_ON_ZERO",
    "TRADITIONAL",
    "ANSI_QUOTES",
    "PIPES_AS_CONCAT",
    "NO_BACKSLASH_ESCAPES",
    "IGNORE_SPACE",
    "HIGH_NOT_PRECEDENCE",
    "NO_UNSIGNED_SUBTRACTION",
    "REAL_AS_FLOAT",
    "PAD_CHAR_TO_FULL_LENGTH",
    "ANSI",
];
/// MySQL 8.0's default.
pub const DEFAULT_SQL_MODE: &str = "ONLY_FULL_GROUP_BY,STRICT_TRANS_TABLES,NO_ZERO_IN_DATE,NO_ZERO_DATE,ERROR_FOR_DIVISION_BY_ZERO,NO_ENGINE_SUBSTITUTION";

/// Every system variable of the server.
pub const VARIABLES: &[Variable] = &[
    var("auto_increment_increment", Both, ReadWrite, int(1, 65_535), "1"),
    var("auto_increment_offset", Both, ReadWrite, int(1, 65_535), "1"),
    var("autocommit", Both, ReadWrite, Bool, "ON"),
    var("character_set_client", Both, ReadWrite, Charset, "utf8mb4"),
    var("character_set_connection", Both, ReadWrite, Charset, "utf8mb4"),
    var("character_set_database", Both, Fixed, Charset, "utf8mb4"),
    var("character_set_filesystem", Both, Fixed, Charset, "binary"),
    var("character_set_results", Both, ReadWrite, Charset, "utf8mb4"),
    var("character_set_server", Both, Fixed, Charset, "utf8mb4"),
    var("character_set_system", Global, ReadOnly, Charset, "utf8mb3"),
    var("collation_connection", Both, ReadWrite, Collation, "utf8mb4_0900_ai_ci"),
    var("collation_database", Both, Fixed, Collation, "utf8mb4_0900_ai_ci"),
    var("collation_server", Both, Fixed, Collation, "utf8mb4_0900_ai_ci"),
    var("connect_timeout", Global, ReadOnly, int(1, 31_536_000), "10"),
    var("datadir", Global, ReadOnly, Text, ""),
    var("default_storage_engine", Both, Fixed, Enum(&["InnoDB"]), "InnoDB"),
    var("default_tmp_storage_engine", Both, Fixed, Enum(&["InnoDB"]), "InnoDB"),
    // No foreign keys yet: both values mean the same.
    var("foreign_key_checks", Both, ReadWrite, Bool, "ON"),
    var("group_concat_max_len", Both, ReadWrite, int(4, 1 << 30), "1024"),
    var("have_ssl", Global, ReadOnly, Text, "YES"),
    var("holdfast_commit_token", Session, ReadOnly, int(0, i64::MAX), "0"),
    var("holdfast_max_staleness", Both, ReadWrite, int(1, 86_400_000), "5000"),
    var("holdfast_node_id", Global, ReadOnly, int(1, i64::MAX), "1"),
    var("holdfast_read_after", Both, ReadWrite, int(0, i64::MAX), "0"),
    var("holdfast_read_consistency", Both, ReadWrite, Enum(&["linearizable", "session", "bounded"]), "linearizable"),
    var("holdfast_transaction_id", Session, ReadWrite, Text, ""),
    var("hostname", Global, ReadOnly, Text, ""),
    var("init_connect", Global, ReadOnly, Text, ""),
    var("innodb_lock_wait_timeout", Both, ReadWrite, int(1, 1_073_741_824), "50"),
    var("innodb_read_only", Global, ReadOnly, Bool, "OFF"),
    var("insert_id", Session, ReadWrite, int(0, i64::MAX), "0"),
    var("interactive_timeout", Both, ReadWrite, int(1, 31_536_000), "28800"),
    var("last_insert_id", Session, ReadWrite, int(0, i64::MAX), "0"),
    var("license", Global, ReadOnly, Text, "Apache-2.0"),
    var("lock_wait_timeout", Both, ReadWrite, int(1, 31_536_000), "31536000"),
    var("log_bin", Global, ReadOnly, Bool, "OFF"),
    var("lower_case_file_system", Global, ReadOnly, Bool, "OFF"),
    var("lower_case_table_names", Global, ReadOnly, int(0, 2), "0"),
    var("max_allowed_packet", Both, ReadOnly, int(1024, 1 << 30), "67108864"),
    var("max_connections", Global, ReadOnly, int(1, 100_000), "500"),
    var("max_prepared_stmt_count", Global, ReadOnly, int(0, 4_194_304), "16382"),
    var("net_buffer_length", Both, ReadOnly, int(1024, 1 << 20), "16384"),
    var("net_read_timeout", Both, ReadWrite, int(1, 31_536_000), "30"),
    var("net_write_timeout", Both, ReadWrite, int(1, 31_536_000), "60"),
    var("performance_schema", Global, ReadOnly, Bool, "OFF"),
    var("port", Global, ReadOnly, int(0, 65_535), "3306"),
    var("protocol_version", Global, ReadOnly, int(10, 10), "10"),
    var("read_only", Global, ReadOnly, Bool, "OFF"),
    var("require_secure_transport", Global, ReadOnly, Bool, "OFF"),
    var("server_id", Global, ReadOnly, int(0, i64::MAX), "1"),
    // There is no Unix socket: clients that ask for it stay on TCP.
    var("socket", Global, ReadOnly, Text, ""),
    var("sql_auto_is_null", Both, Fixed, Bool, "OFF"),
    var("sql_mode", Both, ReadWrite, Set(SQL_MODES), DEFAULT_SQL_MODE),
    var("sql_notes", Both, ReadWrite, Bool, "ON"),
    var("sql_quote_show_create", Both, Fixed, Bool, "ON"),
    var("sql_safe_updates", Both, ReadWrite, Bool, "OFF"),
    var("sql_select_limit", Both, ReadWrite, int(0, i64::MAX), "9223372036854775807"),
    var("sql_warnings", Both, Fixed, Bool, "OFF"),
    var("super_read_only", Global, ReadOnly, Bool, "OFF"),
    var("system_time_zone", Global, ReadOnly, Text, "UTC"),
    var("time_zone", Both, ReadWrite, TimeZone, "SYSTEM"),
    var("transaction_isolation", Both, ReadWrite, ISOLATION, "REPEATABLE-READ"),
    var("transaction_read_only", Both, ReadWrite, Bool, "OFF"),
    var("tx_isolation", Both, ReadWrite, ISOLATION, "REPEATABLE-READ"),
    var("tx_read_only", Both, ReadWrite, Bool, "OFF"),
    // Unique indexes are always checked, which MySQL allows with either value.
    var("unique_checks", Both, ReadWrite, Bool, "ON"),
    var("version", Global, ReadOnly, Text, VERSION),
    var("version_comment", Global, ReadOnly, Text, "Holdfast"),
    var("version_compile_machine", Global, ReadOnly, Text, std::env::consts::ARCH),
    var("version_compile_os", Global, ReadOnly, Text, std::env::consts::OS),
    var("wait_timeout", Both, ReadWrite, int(1, 31_536_000), "28800"),
];
