//! Owns information_schema: virtual tables made from the catalog when they are read. SHOW is built on the same rows.

use crate::{
    errmap::error,
    sql::{
        collation::Collation,
        plan::scope::{ScopeColumn, TableScope},
        types::{DataType, TypeKind},
    },
    wire::result::SqlError,
};

mod tables;

pub use self::tables::{now_text, rows};

/// Name of the database that holds the virtual tables.
pub const DATABASE: &str = "information_schema";

/// The virtual tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VirtualTable {
    Schemata,
    Tables,
    Columns,
    Statistics,
    KeyColumnUsage,
    TableConstraints,
    ReferentialConstraints,
    CheckConstraints,
    Views,
    Routines,
    Parameters,
    Triggers,
    Events,
    Partitions,
    Engines,
    Collations,
    CharacterSets,
    Processlist,
    Plugins,
}

use VirtualTable::*;

/// Shorthand for column types.
#[derive(Clone, Copy)]
enum T {
    Text(u32),
    Long,
    UBig,
    Big,
    Int,
    Time,
}

const ALL: &[VirtualTable] = &[
    Schemata,
    Tables,
    Columns,
    Statistics,
    KeyColumnUsage,
    TableConstraints,
    ReferentialConstraints,
    CheckConstraints,
    Views,
    Routines,
    Parameters,
    Triggers,
    Events,
    Partitions,
    Engines,
    Collations,
    CharacterSets,
    Processlist,
    Plugins,
];

impl VirtualTable {
    pub fn all() -> &'static [Self] {
        ALL
    }

    /// By name without regard to case: 1109 if there is none.
    pub fn find(name: &str) -> Result<Self, SqlError> {
        let found = ALL.iter().copied().find(|t| t.name().eq_ignore_ascii_case(name));
        found.ok_or_else(|| error(1109, format!("Unknown table '{}' in information_schema", name.to_uppercase())))
    }

    pub fn name(self) -> &'static str {
        match self {
            Schemata => "SCHEMATA",
            Tables => "TABLES",
            Columns => "COLUMNS",
            Statistics => "STATISTICS",
            KeyColumnUsage => "KEY_COLUMN_USAGE",
            TableConstraints => "TABLE_CONSTRAINTS",
            ReferentialConstraints => "REFERENTIAL_CONSTRAINTS",
            CheckConstraints => "CHECK_CONSTRAINTS",
            Views => "VIEWS",
            Routines => "ROUTINES",
            Parameters => "PARAMETERS",
            Triggers => "TRIGGERS",
            Events => "EVENTS",
            Partitions => "PARTITIONS",
            Engines => "ENGINES",
            Collations => "COLLATIONS",
            CharacterSets => "CHARACTER_SETS",
            Processlist => "PROCESSLIST",
            Plugins => "PLUGINS",
        }
    }

    fn columns(self) -> &'static [(&'static str, T)] {
        use T::{Big, Int, Long, Text, Time, UBig};
        match self {
            Schemata => &[
                ("CATALOG_NAME", Text(64)),
                ("SCHEMA_NAME", Text(64)),
                ("DEFAULT_CHARACTER_SET_NAME", Text(64)),
                ("DEFAULT_COLLATION_NAME", Text(64)),
                ("SQL_PATH", Text(512)),
                ("DEFAULT_ENCRYPTION", Text(3)),
            ],
            Tables => &[
                ("TABLE_CATALOG", Text(64)),
                ("TABLE_SCHEMA", Text(64)),
                ("TABLE_NAME", Text(64)),
                ("TABLE_TYPE", Text(64)),
                ("ENGINE", Text(64)),
                ("VERSION", Int),
                ("ROW_FORMAT", Text(10)),
                ("TABLE_ROWS", UBig),
                ("AVG_ROW_LENGTH", UBig),
                ("DATA_LENGTH", UBig),
                ("MAX_DATA_LENGTH", UBig),
                ("INDEX_LENGTH", UBig),
                ("DATA_FREE", UBig),
                ("AUTO_INCREMENT", UBig),
                ("CREATE_TIME", Time),
                ("UPDATE_TIME", Time),
                ("CHECK_TIME", Time),
                ("TABLE_COLLATION", Text(64)),
                ("CHECKSUM", Big),
                ("CREATE_OPTIONS", Text(256)),
                ("TABLE_COMMENT", Long),
            ],
            Columns => &[
                ("TABLE_CATALOG", Text(64)),
                ("TABLE_SCHEMA", Text(64)),
                ("TABLE_NAME", Text(64)),
                ("COLUMN_NAME", Text(64)),
                ("ORDINAL_POSITION", UBig),
                ("COLUMN_DEFAULT", Long),
                ("IS_NULLABLE", Text(3)),
                ("DATA_TYPE", Long),
                ("CHARACTER_MAXIMUM_LENGTH", Big),
                ("CHARACTER_OCTET_LENGTH", Big),
                ("NUMERIC_PRECISION", UBig),
                ("NUMERIC_SCALE", UBig),
                ("DATETIME_PRECISION", UBig),
                ("CHARACTER_SET_NAME", Text(64)),
                ("COLLATION_NAME", Text(64)),
                ("COLUMN_TYPE", Long),
                ("COLUMN_KEY", Text(3)),
                ("EXTRA", Text(256)),
                ("PRIVILEGES", Text(154)),
                ("COLUMN_COMMENT", Long),
                ("GENERATION_EXPRESSION", Long),
                ("SRS_ID", UBig),
            ],
            Statistics => &[
                ("TABLE_CATALOG", Text(64)),
                ("TABLE_SCHEMA", Text(64)),
                ("TABLE_NAME", Text(64)),
                ("NON_UNIQUE", Int),
                ("INDEX_SCHEMA", Text(64)),
                ("INDEX_NAME", Text(64)),
                ("SEQ_IN_INDEX", UBig),
                ("COLUMN_NAME", Text(64)),
                ("COLLATION", Text(1)),
                ("CARDINALITY", Big),
                ("SUB_PART", Big),
                ("PACKED", Text(1)),
                ("NULLABLE", Text(3)),
                ("INDEX_TYPE", Text(11)),
                ("COMMENT", Text(8)),
                ("INDEX_COMMENT", Long),
                ("IS_VISIBLE", Text(3)),
                ("EXPRESSION", Long),
            ],
            KeyColumnUsage => &[
                ("CONSTRAINT_CATALOG", Text(64)),
                ("CONSTRAINT_SCHEMA", Text(64)),
                ("CONSTRAINT_NAME", Text(64)),
                ("TABLE_CATALOG", Text(64)),
                ("TABLE_SCHEMA", Text(64)),
                ("TABLE_NAME", Text(64)),
                ("COLUMN_NAME", Text(64)),
                ("ORDINAL_POSITION", UBig),
                ("POSITION_IN_UNIQUE_CONSTRAINT", UBig),
                ("REFERENCED_TABLE_SCHEMA", Text(64)),
                ("REFERENCED_TABLE_NAME", Text(64)),
                ("REFERENCED_COLUMN_NAME", Text(64)),
            ],
            TableConstraints => &[
                ("CONSTRAINT_CATALOG", Text(64)),
                ("CONSTRAINT_SCHEMA", Text(64)),
                ("CONSTRAINT_NAME", Text(64)),
                ("TABLE_SCHEMA", Text(64)),
                ("TABLE_NAME", Text(64)),
                ("CONSTRAINT_TYPE", Text(11)),
                ("ENFORCED", Text(3)),
            ],
            ReferentialConstraints => &[
                ("CONSTRAINT_CATALOG", Text(64)),
                ("CONSTRAINT_SCHEMA", Text(64)),
                ("CONSTRAINT_NAME", Text(64)),
                ("UNIQUE_CONSTRAINT_CATALOG", Text(64)),
                ("UNIQUE_CONSTRAINT_SCHEMA", Text(64)),
                ("UNIQUE_CONSTRAINT_NAME", Text(64)),
                ("MATCH_OPTION", Text(64)),
                ("UPDATE_RULE", Text(64)),
                ("DELETE_RULE", Text(64)),
                ("TABLE_NAME", Text(64)),
                ("REFERENCED_TABLE_NAME", Text(64)),
            ],
            CheckConstraints => &[
                ("CONSTRAINT_CATALOG", Text(64)),
                ("CONSTRAINT_SCHEMA", Text(64)),
                ("CONSTRAINT_NAME", Text(64)),
                ("CHECK_CLAUSE", Long),
            ],
            Views => &[
                ("TABLE_CATALOG", Text(64)),
                ("TABLE_SCHEMA", Text(64)),
                ("TABLE_NAME", Text(64)),
                ("VIEW_DEFINITION", Long),
                ("CHECK_OPTION", Text(8)),
                ("IS_UPDATABLE", Text(3)),
                ("DEFINER", Text(288)),
                ("SECURITY_TYPE", Text(7)),
                ("CHARACTER_SET_CLIENT", Text(64)),
                ("COLLATION_CONNECTION", Text(64)),
            ],
            Routines => &[
                ("SPECIFIC_NAME", Text(64)),
                ("ROUTINE_CATALOG", Text(64)),
                ("ROUTINE_SCHEMA", Text(64)),
                ("ROUTINE_NAME", Text(64)),
                ("ROUTINE_TYPE", Text(9)),
                ("DATA_TYPE", Long),
                ("ROUTINE_DEFINITION", Long),
                ("DEFINER", Text(288)),
                ("CREATED", Time),
                ("LAST_ALTERED", Time),
                ("SQL_MODE", Text(512)),
                ("ROUTINE_COMMENT", Long),
            ],
            Parameters => &[
                ("SPECIFIC_CATALOG", Text(64)),
                ("SPECIFIC_SCHEMA", Text(64)),
                ("SPECIFIC_NAME", Text(64)),
                ("ORDINAL_POSITION", UBig),
                ("PARAMETER_MODE", Text(5)),
                ("PARAMETER_NAME", Text(64)),
                ("DATA_TYPE", Long),
                ("DTD_IDENTIFIER", Long),
                ("ROUTINE_TYPE", Text(9)),
            ],
            Triggers => &[
                ("TRIGGER_CATALOG", Text(64)),
                ("TRIGGER_SCHEMA", Text(64)),
                ("TRIGGER_NAME", Text(64)),
                ("EVENT_MANIPULATION", Text(6)),
                ("EVENT_OBJECT_SCHEMA", Text(64)),
                ("EVENT_OBJECT_TABLE", Text(64)),
                ("ACTION_STATEMENT", Long),
                ("ACTION_TIMING", Text(6)),
                ("CREATED", Time),
                ("SQL_MODE", Text(512)),
                ("DEFINER", Text(288)),
            ],
            Events => &[
                ("EVENT_CATALOG", Text(64)),
                ("EVENT_SCHEMA", Text(64)),
                ("EVENT_NAME", Text(64)),
                ("DEFINER", Text(288)),
                ("EVENT_DEFINITION", Long),
                ("EVENT_TYPE", Text(9)),
                ("STATUS", Text(18)),
            ],
            Partitions => &[
                ("TABLE_CATALOG", Text(64)),
                ("TABLE_SCHEMA", Text(64)),
                ("TABLE_NAME", Text(64)),
                ("PARTITION_NAME", Text(64)),
                ("SUBPARTITION_NAME", Text(64)),
                ("PARTITION_ORDINAL_POSITION", UBig),
                ("PARTITION_METHOD", Text(13)),
                ("PARTITION_EXPRESSION", Text(2048)),
                ("TABLE_ROWS", UBig),
            ],
            Engines => &[
                ("ENGINE", Text(64)),
                ("SUPPORT", Text(8)),
                ("COMMENT", Text(80)),
                ("TRANSACTIONS", Text(3)),
                ("XA", Text(3)),
                ("SAVEPOINTS", Text(3)),
            ],
            Collations => &[
                ("COLLATION_NAME", Text(64)),
                ("CHARACTER_SET_NAME", Text(64)),
                ("ID", UBig),
                ("IS_DEFAULT", Text(3)),
                ("IS_COMPILED", Text(3)),
                ("SORTLEN", UBig),
                ("PAD_ATTRIBUTE", Text(9)),
            ],
            CharacterSets => &[
                ("CHARACTER_SET_NAME", Text(64)),
                ("DEFAULT_COLLATE_NAME", Text(64)),
                ("DESCRIPTION", Text(2048)),
                ("MAXLEN", UBig),
            ],
            Processlist => &[
                ("ID", UBig),
                ("USER", Text(32)),
                ("HOST", Text(261)),
                ("DB", Text(64)),
                ("COMMAND", Text(16)),
                ("TIME", Int),
                ("STATE", Text(64)),
                ("INFO", Long),
            ],
            Plugins => &[
                ("PLUGIN_NAME", Text(64)),
                ("PLUGIN_VERSION", Text(20)),
                ("PLUGIN_STATUS", Text(10)),
                ("PLUGIN_TYPE", Text(80)),
                ("PLUGIN_LIBRARY", Text(64)),
                ("PLUGIN_LICENSE", Text(80)),
                ("LOAD_OPTION", Text(64)),
            ],
        }
    }

    /// Column names and types.
    pub fn scope_columns(self) -> Vec<ScopeColumn> {
        let collation = Collation::from_name("utf8mb4_0900_ai_ci").unwrap_or_default();
        let ty = |t: T| match t {
            T::Text(n) => DataType::varchar(n, collation),
            T::Long => DataType::text(collation),
            T::UBig => DataType::UBIGINT,
            T::Big => DataType::BIGINT,
            T::Int => DataType::INT,
            T::Time => DataType::new(TypeKind::DateTime),
        };
        let column = |(name, t): &(&str, T)| ScopeColumn { name: (*name).to_owned(), ty: ty(*t), nullable: true };
        self.columns().iter().map(column).collect()
    }

    /// The names that a statement over it may use.
    pub fn scope(self, alias: &str) -> TableScope {
        TableScope {
            database: DATABASE.to_owned(),
            table: alias.to_owned(),
            columns: self.scope_columns(),
            ..TableScope::default()
        }
    }

    /// Ordinal of a column, for SHOW.
    pub fn ordinal(self, column: &str) -> Option<usize> {
        self.columns().iter().position(|(name, _)| *name == column)
    }
}
