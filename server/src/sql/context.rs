//! Owns what evaluation reads besides the row: parameters, sql_mode, the clock of the statement, and the session behind a trait.

use super::ast::VariableScope;
use super::error::{Result, Warning};
use super::value::Value;

/// The flags of sql_mode that the front reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SqlMode {
    /// STRICT_TRANS_TABLES or STRICT_ALL_TABLES: bad values are errors, not warnings.
    pub strict: bool,
    /// NO_ZERO_DATE.
    pub no_zero_date: bool,
    /// NO_ZERO_IN_DATE.
    pub no_zero_in_date: bool,
    /// ERROR_FOR_DIVISION_BY_ZERO.
    pub error_for_division_by_zero: bool,
    /// ALLOW_INVALID_DATES.
    pub allow_invalid_dates: bool,
    /// ANSI_QUOTES: "x" is an identifier.
    pub ansi_quotes: bool,
    /// NO_BACKSLASH_ESCAPES.
    pub no_backslash_escapes: bool,
    /// PIPES_AS_CONCAT.
    pub pipes_as_concat: bool,
    /// NO_UNSIGNED_SUBTRACTION.
    pub no_unsigned_subtraction: bool,
    /// ONLY_FULL_GROUP_BY.
    pub only_full_group_by: bool,
    /// NO_AUTO_VALUE_ON_ZERO.
    pub no_auto_value_on_zero: bool,
    /// PAD_CHAR_TO_FULL_LENGTH.
    pub pad_char_to_full_length: bool,
    /// HIGH_NOT_PRECEDENCE.
    pub high_not_precedence: bool,
}

impl SqlMode {
    /// MySQL 8.0's default: `ONLY_FULL_GROUP_BY,STRICT_TRANS_TABLES,NO_ZERO_IN_DATE,NO_ZERO_DATE,ERROR_FOR_DIVISION_BY_ZERO,NO_ENGINE_SUBSTITUTION`.
    pub const DEFAULT: Self = Self {
        strict: true,
        no_zero_date: true,
        no_zero_in_date: true,
        error_for_division_by_zero: true,
        only_full_group_by: true,
        ..Self::NONE
    };
    /// The empty mode.
    pub const NONE: Self = Self {
        strict: false,
        no_zero_date: false,
        no_zero_in_date: false,
        error_for_division_by_zero: false,
        allow_invalid_dates: false,
        ansi_quotes: false,
        no_backslash_escapes: false,
        pipes_as_concat: false,
        no_unsigned_subtraction: false,
        only_full_group_by: false,
        no_auto_value_on_zero: false,
        pad_char_to_full_length: false,
        high_not_precedence: false,
    };

    /// Reads a sql_mode string; names that the front does not need are accepted if MySQL knows them.
    /// `Err` carries the unknown name (error 1231 is the caller's).
    pub fn parse(text: &str) -> std::result::Result<Self, String> {
        let mut mode = Self::NONE;
        for name in text.split(',').map(str::trim).filter(|name| !name.is_empty()) {
            match name.to_ascii_uppercase().as_str() {
                "STRICT_TRANS_TABLES" | "STRICT_ALL_TABLES" => mode.strict = true,
                "NO_ZERO_DATE" => mode.no_zero_date = true,
                "NO_ZERO_IN_DATE" => mode.no_zero_in_date = true,
                "ERROR_FOR_DIVISION_BY_ZERO" => mode.error_for_division_by_zero = true,
                "ALLOW_INVALID_DATES" => mode.allow_invalid_dates = true,
                "ANSI_QUOTES" => mode.ansi_quotes = true,
                "NO_BACKSLASH_ESCAPES" => mode.no_backslash_escapes = true,
                "PIPES_AS_CONCAT" => mode.pipes_as_concat = true,
                "NO_UNSIGNED_SUBTRACTION" => mode.no_unsigned_subtraction = true,
                "ONLY_FULL_GROUP_BY" => mode.only_full_group_by = true,
                "NO_AUTO_VALUE_ON_ZERO" => mode.no_auto_value_on_zero = true,
                "PAD_CHAR_TO_FULL_LENGTH" => mode.pad_char_to_full_length = true,
                "HIGH_NOT_PRECEDENCE" => mode.high_not_precedence = true,
                "ANSI" => {
                    mode.ansi_quotes = true;
                    mode.pipes_as_concat = true;
                    mode.only_full_group_by = true;
                }
                "TRADITIONAL" => {
                    mode.strict = true;
                    mode.no_zero_date = true;
                    mode.no_zero_in_date = true;
                    mode.error_for_division_by_zero = true;
                }
                "NO_ENGINE_SUBSTITUTION"
                | "NO_DIR_IN_CREATE"
                | "IGNORE_SPACE"
                | "REAL_AS_FLOAT"
                | "TIME_TRUNCATE_FRACTIONAL" => {}
                _ => return Err(name.to_owned()),
            }
        }
        Ok(mode)
    }
}

impl Default for SqlMode {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// The session, as expressions see it. Methods take `&self` so that a row loop can share it; implementations lock inside.
pub trait SessionInfo: Send + Sync {
    /// DATABASE().
    fn database(&self) -> Option<String>;
    /// USER(): `user@host` as the client logged in.
    fn user(&self) -> String;
    /// CURRENT_USER(): `user@host` of the account.
    fn current_user(&self) -> String;
    /// CONNECTION_ID().
    fn connection_id(&self) -> u64;
    /// VERSION().
    fn version(&self) -> String;
    /// LAST_INSERT_ID().
    fn last_insert_id(&self) -> u64;
    /// LAST_INSERT_ID(expr).
    fn set_last_insert_id(&self, id: u64);
    /// ROW_COUNT().
    fn row_count(&self) -> i64;
    /// FOUND_ROWS().
    fn found_rows(&self) -> u64;
    /// `@name`; NULL if never set. Names are case-insensitive.
    fn user_var(&self, name: &str) -> Value;
    /// `@name := value`.
    fn set_user_var(&self, name: &str, value: Value);
    /// `@@name`, lower case; error 1193 if there is none.
    fn system_var(&self, scope: VariableScope, name: &str) -> Result<Value>;
    /// Adds to the statement's warnings.
    fn warn(&self, warning: Warning);
    /// GET_LOCK and its kin: `None` means that named locks are not supported.
    fn named_lock(&self, _function: &str, _name: &str) -> Option<Value> {
        None
    }
    /// A random number in [0, 1) for RAND() and UUID().
    fn random(&self) -> f64;
    /// sql_mode of the session.
    fn sql_mode(&self) -> SqlMode;
    /// Start of the statement, microseconds since 1970 UTC.
    fn statement_micros(&self) -> i64;
    /// Offset of the session's time zone from UTC, in seconds.
    fn zone_offset_seconds(&self) -> i32;
}

/// Everything an evaluation reads besides the row. Cheap to make, once per statement.
pub struct Context<'a> {
    /// Values of `?`, or literals that the digest took out.
    pub params: &'a [Value],
    /// The session.
    pub session: &'a dyn SessionInfo,
    /// Its sql_mode.
    pub mode: SqlMode,
    /// Statement start, microseconds since 1970 UTC.
    pub now_micros: i64,
    /// Offset of the session's time zone.
    pub zone_offset_seconds: i32,
    /// Truncation of data is an error: INSERT, UPDATE and their like in strict mode. SELECT only warns.
    pub strict_data: bool,
}

impl<'a> Context<'a> {
    /// Context of a statement that only reads.
    pub fn new(params: &'a [Value], session: &'a dyn SessionInfo) -> Self {
        Self {
            params,
            session,
            mode: session.sql_mode(),
            now_micros: session.statement_micros(),
            zone_offset_seconds: session.zone_offset_seconds(),
            strict_data: false,
        }
    }

    /// Adds a warning.
    pub fn warn(&self, warning: impl Into<Warning>) {
        self.session.warn(warning.into());
    }
}
