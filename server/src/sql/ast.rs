//! Owns the statement tree: what MySQL text says, before names are resolved. Expressions are in [`super::ast_expr`].

pub use super::ast_expr::*;
use super::types::DataType;

/// `[database.]name`, as written.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ObjectName {
    /// Database, if it was given.
    pub database: Option<String>,
    /// Table (or other object).
    pub name: String,
}

/// One SQL statement.
#[derive(Clone, Debug, PartialEq)]
pub enum Statement {
    /// Nothing but comments.
    Empty,
    /// SELECT, UNION, TABLE, VALUES.
    Query(Box<Query>),
    /// INSERT and REPLACE.
    Insert(Box<Insert>),
    /// UPDATE.
    Update(Box<Update>),
    /// DELETE.
    Delete(Box<Delete>),
    /// TRUNCATE \[TABLE\].
    Truncate(ObjectName),
    /// Schema changes.
    Ddl(Box<Ddl>),
    /// Transactions and locks.
    Transaction(Transaction),
    /// SET: assignments in order.
    Set(Vec<SetItem>),
    /// USE db.
    Use(String),
    /// SHOW.
    Show(Box<Show>),
    /// DESCRIBE table \[column or pattern\].
    Describe { table: ObjectName, column: Option<String> },
    /// EXPLAIN statement.
    Explain { analyze: bool, format: Option<String>, statement: Box<Statement> },
    /// KILL \[CONNECTION | QUERY\] id.
    Kill { query: bool, id: Expr },
    /// ALTER USER ... IDENTIFIED BY, SET PASSWORD.
    AlterUser(Vec<AlterUser>),
    /// PREPARE name FROM 'text' or @variable.
    Prepare { name: String, source: PrepareSource },
    /// EXECUTE name \[USING @a, @b\].
    Execute { name: String, using: Vec<String> },
    /// DEALLOCATE PREPARE name.
    Deallocate(String),
    /// DO expr, ...
    Do(Vec<Expr>),
    /// FLUSH words, such as `TABLES WITH READ LOCK`.
    Flush(Vec<String>),
    /// ANALYZE, CHECK, OPTIMIZE, REPAIR or CHECKSUM TABLE.
    Maintain { verb: MaintainVerb, tables: Vec<ObjectName> },
    /// Recognised MySQL that is not done here; the text names it for error 1235.
    Unsupported(String),
}

/// Verb of a table maintenance statement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MaintainVerb {
    /// ANALYZE TABLE.
    Analyze,
    /// CHECK TABLE.
    Check,
    /// OPTIMIZE TABLE.
    Optimize,
    /// REPAIR TABLE.
    Repair,
    /// CHECKSUM TABLE.
    Checksum,
}

/// Where PREPARE takes its text from.
#[derive(Clone, Debug, PartialEq)]
pub enum PrepareSource {
    /// A literal.
    Text(String),
    /// A user variable.
    Variable(String),
}

/// `ALTER USER user@host IDENTIFIED BY 'password'`.
#[derive(Clone, Debug, PartialEq)]
pub struct AlterUser {
    /// `None` is USER() or CURRENT_USER().
    pub user: Option<(String, String)>,
    /// `IDENTIFIED WITH plugin`.
    pub plugin: Option<String>,
    /// The new password.
    pub password: Option<String>,
}

/// A query with what applies to its whole result.
#[derive(Clone, Debug, PartialEq)]
pub struct Query {
    /// WITH list.
    pub with: Vec<Cte>,
    /// SELECT or UNION.
    pub body: QueryBody,
    /// ORDER BY.
    pub order_by: Vec<OrderItem>,
    /// LIMIT.
    pub limit: Option<Limit>,
    /// FOR UPDATE, FOR SHARE.
    pub lock: Option<RowLock>,
}

/// `name [(columns)] AS (query)`.
#[derive(Clone, Debug, PartialEq)]
pub struct Cte {
    /// Its name.
    pub name: String,
    /// Column names, if given.
    pub columns: Vec<String>,
    /// Its query.
    pub query: Query,
    /// WITH RECURSIVE.
    pub recursive: bool,
}

/// A SELECT or a set operation.
#[derive(Clone, Debug, PartialEq)]
pub enum QueryBody {
    /// A plain SELECT.
    Select(Box<Select>),
    /// `left UNION [ALL] right`, also EXCEPT and INTERSECT.
    SetOp { op: SetOp, all: bool, left: Box<Query>, right: Box<Query> },
}

/// Set operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SetOp {
    /// UNION.
    Union,
    /// EXCEPT.
    Except,
    /// INTERSECT.
    Intersect,
}

/// One SELECT.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct Select {
    /// DISTINCT.
    pub distinct: bool,
    /// SQL_CALC_FOUND_ROWS.
    pub calc_found_rows: bool,
    /// The select list.
    pub items: Vec<SelectItem>,
    /// FROM list; joins are nodes in it. Empty without FROM (or FROM DUAL).
    pub from: Vec<TableRef>,
    /// WHERE.
    pub filter: Option<Expr>,
    /// GROUP BY.
    pub group_by: Vec<Expr>,
    /// WITH ROLLUP.
    pub rollup: bool,
    /// HAVING.
    pub having: Option<Expr>,
    /// INTO @a, @b.
    pub into: Vec<String>,
}

/// One entry of a select list.
#[derive(Clone, Debug, PartialEq)]
pub enum SelectItem {
    /// `*`
    Wildcard,
    /// `[db.]table.*`
    TableWildcard(ObjectName),
    /// An expression; `text` is its source, the column's name when there is no alias.
    Expr { expr: Expr, alias: Option<String>, text: String },
}

/// A table, or a join of tables.
#[derive(Clone, Debug, PartialEq)]
pub enum TableRef {
    /// `name [AS alias] [index hints]`
    Table { name: ObjectName, alias: Option<String>, hints: Vec<IndexHint> },
    /// `(query) AS alias`
    Derived { query: Box<Query>, alias: String, columns: Vec<String> },
    /// A join.
    Join { kind: JoinKind, left: Box<TableRef>, right: Box<TableRef>, on: Option<Expr>, using: Vec<String> },
}

/// USE / FORCE / IGNORE INDEX.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IndexHint {
    /// What the hint asks.
    pub kind: HintKind,
    /// Index names; PRIMARY for the primary key.
    pub indexes: Vec<String>,
}

/// Kind of an index hint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HintKind {
    /// USE INDEX.
    Use,
    /// FORCE INDEX.
    Force,
    /// IGNORE INDEX.
    Ignore,
}

/// Kind of join.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JoinKind {
    /// INNER, CROSS and comma.
    Inner,
    /// LEFT \[OUTER\].
    Left,
    /// RIGHT \[OUTER\].
    Right,
    /// NATURAL.
    Natural,
    /// NATURAL LEFT.
    NaturalLeft,
    /// NATURAL RIGHT.
    NaturalRight,
}

/// One ORDER BY key.
#[derive(Clone, Debug, PartialEq)]
pub struct OrderItem {
    /// Key; an integer literal is a position in the select list.
    pub expr: Expr,
    /// DESC.
    pub descending: bool,
}

/// LIMIT: literals or parameters.
#[derive(Clone, Debug, PartialEq)]
pub struct Limit {
    /// Rows to return.
    pub count: Expr,
    /// Rows to skip.
    pub offset: Option<Expr>,
}

/// FOR UPDATE / FOR SHARE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RowLock {
    /// FOR UPDATE; otherwise FOR SHARE or LOCK IN SHARE MODE.
    pub exclusive: bool,
    /// What to do on a locked row.
    pub wait: LockWait,
}

/// Behaviour at a locked row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LockWait {
    /// Wait up to innodb_lock_wait_timeout.
    Wait,
    /// NOWAIT: error 3572.
    NoWait,
    /// SKIP LOCKED.
    SkipLocked,
}

/// INSERT or REPLACE.
#[derive(Clone, Debug, PartialEq)]
pub struct Insert {
    /// REPLACE.
    pub replace: bool,
    /// IGNORE.
    pub ignore: bool,
    /// Target.
    pub table: ObjectName,
    /// Column names; empty means all.
    pub columns: Vec<String>,
    /// Rows.
    pub source: InsertSource,
    /// `AS alias [(columns)]` of the new row.
    pub row_alias: Option<(String, Vec<String>)>,
    /// ON DUPLICATE KEY UPDATE.
    pub on_duplicate: Vec<Assignment>,
}

/// Rows of an INSERT. SET form becomes `columns` and one row.
#[derive(Clone, Debug, PartialEq)]
pub enum InsertSource {
    /// VALUES lists; an empty list is a row of defaults.
    Values(Vec<Vec<Expr>>),
    /// INSERT ... SELECT.
    Query(Box<Query>),
}

/// `column = expr`.
#[derive(Clone, Debug, PartialEq)]
pub struct Assignment {
    /// Target column.
    pub column: ColumnName,
    /// New value; [`Expr::Default`] is DEFAULT.
    pub value: Expr,
}

/// UPDATE.
#[derive(Clone, Debug, PartialEq)]
pub struct Update {
    /// IGNORE.
    pub ignore: bool,
    /// Tables; one for what is supported now.
    pub tables: Vec<TableRef>,
    /// SET list.
    pub assignments: Vec<Assignment>,
    /// WHERE.
    pub filter: Option<Expr>,
    /// ORDER BY.
    pub order_by: Vec<OrderItem>,
    /// LIMIT.
    pub limit: Option<Limit>,
}

/// DELETE.
#[derive(Clone, Debug, PartialEq)]
pub struct Delete {
    /// IGNORE.
    pub ignore: bool,
    /// Rows of these tables go (multi-table form); empty means the single table in `from`.
    pub targets: Vec<ObjectName>,
    /// Tables; one for what is supported now.
    pub from: Vec<TableRef>,
    /// WHERE.
    pub filter: Option<Expr>,
    /// ORDER BY.
    pub order_by: Vec<OrderItem>,
    /// LIMIT.
    pub limit: Option<Limit>,
}

/// Schema changes.
#[derive(Clone, Debug, PartialEq)]
pub enum Ddl {
    /// CREATE DATABASE.
    CreateDatabase { name: String, if_not_exists: bool, options: Vec<TableOption> },
    /// DROP DATABASE.
    DropDatabase { name: String, if_exists: bool },
    /// ALTER DATABASE.
    AlterDatabase { name: Option<String>, options: Vec<TableOption> },
    /// CREATE TABLE.
    CreateTable(CreateTable),
    /// CREATE TABLE t LIKE other.
    CreateTableLike { name: ObjectName, like: ObjectName, if_not_exists: bool, temporary: bool },
    /// DROP TABLE.
    DropTable { names: Vec<ObjectName>, if_exists: bool, temporary: bool },
    /// DROP VIEW.
    DropView { names: Vec<ObjectName>, if_exists: bool },
    /// ALTER TABLE.
    AlterTable { name: ObjectName, actions: Vec<AlterAction> },
    /// CREATE INDEX.
    CreateIndex { table: ObjectName, index: IndexDef },
    /// DROP INDEX name ON table.
    DropIndex { table: ObjectName, name: String },
    /// RENAME TABLE a TO b, ...
    RenameTable(Vec<(ObjectName, ObjectName)>),
}

/// CREATE TABLE.
#[derive(Clone, Debug, PartialEq)]
pub struct CreateTable {
    /// Table name.
    pub name: ObjectName,
    /// TEMPORARY.
    pub temporary: bool,
    /// IF NOT EXISTS.
    pub if_not_exists: bool,
    /// Columns in order.
    pub columns: Vec<ColumnDef>,
    /// Indexes, those written on columns included, the primary key wherever it was written.
    pub indexes: Vec<IndexDef>,
    /// FOREIGN KEY constraints.
    pub foreign_keys: Vec<ForeignKey>,
    /// CHECK constraints.
    pub checks: Vec<Check>,
    /// Table options.
    pub options: Vec<TableOption>,
    /// PARTITION BY was given.
    pub partitioned: bool,
    /// CREATE TABLE ... \[AS\] SELECT.
    pub query: Option<Box<Query>>,
}

/// A column's declared type.
#[derive(Clone, Debug, PartialEq)]
pub enum ColumnType {
    /// A type that values can have.
    Plain(DataType),
    /// ENUM members.
    Enum(Vec<String>),
    /// SET members.
    Set(Vec<String>),
    /// BIT(n).
    Bit(u8),
    /// GEOMETRY and its kin.
    Spatial(String),
}

/// One column of CREATE or ALTER TABLE.
#[derive(Clone, Debug, PartialEq)]
pub struct ColumnDef {
    /// Name.
    pub name: String,
    /// Type. String types carry `charset_given` when the collation was written at the column.
    pub ty: ColumnType,
    /// CHARACTER SET or COLLATE was written at the column (else the table's default applies to text types).
    pub charset_given: bool,
    /// NOT NULL (`Some(true)`), NULL (`Some(false)`), or neither.
    pub not_null: Option<bool>,
    /// DEFAULT.
    pub default: Option<Expr>,
    /// ON UPDATE CURRENT_TIMESTAMP.
    pub on_update: Option<Expr>,
    /// AUTO_INCREMENT.
    pub auto_increment: bool,
    /// COMMENT.
    pub comment: Option<String>,
    /// INVISIBLE.
    pub invisible: bool,
    /// GENERATED ALWAYS AS (expr) \[STORED\].
    pub generated: Option<(Expr, bool)>,
}

/// An index or the primary key.
#[derive(Clone, Debug, PartialEq)]
pub struct IndexDef {
    /// Name, if given.
    pub name: Option<String>,
    /// Kind.
    pub kind: IndexKind,
    /// Key parts.
    pub parts: Vec<IndexPart>,
    /// COMMENT.
    pub comment: Option<String>,
    /// INVISIBLE.
    pub invisible: bool,
}

/// Kind of an index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IndexKind {
    /// PRIMARY KEY.
    Primary,
    /// UNIQUE.
    Unique,
    /// Plain.
    Plain,
    /// FULLTEXT.
    FullText,
    /// SPATIAL.
    Spatial,
}

/// One key part.
#[derive(Clone, Debug, PartialEq)]
pub struct IndexPart {
    /// A column, unless the part is an expression.
    pub column: String,
    /// Prefix length in characters (text) or bytes (binary).
    pub prefix: Option<u32>,
    /// DESC.
    pub descending: bool,
    /// `(expr)` key part.
    pub expr: Option<Expr>,
}

/// FOREIGN KEY.
#[derive(Clone, Debug, PartialEq)]
pub struct ForeignKey {
    /// Constraint name.
    pub name: Option<String>,
    /// Referencing columns.
    pub columns: Vec<String>,
    /// Referenced table.
    pub table: ObjectName,
    /// Referenced columns.
    pub referenced: Vec<String>,
    /// ON DELETE action, as written.
    pub on_delete: Option<String>,
    /// ON UPDATE action, as written.
    pub on_update: Option<String>,
}

/// CHECK constraint.
#[derive(Clone, Debug, PartialEq)]
pub struct Check {
    /// Constraint name.
    pub name: Option<String>,
    /// Condition.
    pub expr: Expr,
    /// NOT ENFORCED was not written.
    pub enforced: bool,
}

/// `NAME [=] value`, the name in upper case (`ENGINE`, `CHARSET`, `COLLATE`, `COMMENT`, `AUTO_INCREMENT`, `ROW_FORMAT`, ...).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableOption {
    /// Upper-case name; CHARACTER SET is `CHARSET`.
    pub name: String,
    /// Value as text.
    pub value: String,
}

/// Where a column goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ColumnPlace {
    /// At the end, or where it was.
    Keep,
    /// FIRST.
    First,
    /// AFTER column.
    After(String),
}

/// One action of ALTER TABLE.
#[derive(Clone, Debug, PartialEq)]
pub enum AlterAction {
    /// ADD COLUMN, with the column's own indexes.
    AddColumn { column: ColumnDef, place: ColumnPlace, indexes: Vec<IndexDef> },
    /// DROP COLUMN.
    DropColumn(String),
    /// MODIFY and CHANGE.
    ChangeColumn { old: String, column: ColumnDef, place: ColumnPlace, indexes: Vec<IndexDef> },
    /// RENAME COLUMN.
    RenameColumn { old: String, new: String },
    /// ALTER COLUMN SET DEFAULT / DROP DEFAULT.
    SetDefault { column: String, default: Option<Expr> },
    /// ADD INDEX / UNIQUE / PRIMARY KEY.
    AddIndex(IndexDef),
    /// ADD FOREIGN KEY.
    AddForeignKey(ForeignKey),
    /// ADD CHECK.
    AddCheck(Check),
    /// DROP INDEX.
    DropIndex(String),
    /// DROP PRIMARY KEY.
    DropPrimaryKey,
    /// DROP FOREIGN KEY.
    DropForeignKey(String),
    /// DROP CHECK / CONSTRAINT.
    DropConstraint(String),
    /// RENAME INDEX.
    RenameIndex { old: String, new: String },
    /// RENAME TO.
    RenameTable(ObjectName),
    /// ENGINE=, COMMENT=, ...
    Options(Vec<TableOption>),
    /// CONVERT TO CHARACTER SET.
    ConvertCharset { charset: String, collation: Option<String> },
    /// DISABLE KEYS, ENABLE KEYS.
    Keys { enable: bool },
    /// FORCE.
    Force,
    /// ALGORITHM=..., LOCK=...: hints without effect.
    Hint,
    /// Anything else, named for error 1235.
    Unsupported(String),
}

/// Transactions and table locks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Transaction {
    /// BEGIN, START TRANSACTION.
    Begin { consistent_snapshot: bool, read_only: Option<bool> },
    /// COMMIT.
    Commit { chain: bool, release: bool },
    /// ROLLBACK.
    Rollback { chain: bool, release: bool },
    /// SAVEPOINT.
    Savepoint(String),
    /// ROLLBACK TO.
    RollbackTo(String),
    /// RELEASE SAVEPOINT.
    Release(String),
    /// LOCK TABLES: name, alias, write.
    LockTables(Vec<(ObjectName, Option<String>, bool)>),
    /// UNLOCK TABLES.
    UnlockTables,
}

/// One assignment of SET.
#[derive(Clone, Debug, PartialEq)]
pub enum SetItem {
    /// A system variable. [`SetValue::Default`] restores the default. Names are lower case.
    Variable { scope: VariableScope, name: String, value: SetValue },
    /// `@name = expr`, the name as written.
    User { name: String, value: Expr },
    /// SET NAMES charset \[COLLATE collation\]; `None` is DEFAULT.
    Names { charset: Option<String>, collation: Option<String> },
    /// SET CHARACTER SET; `None` is DEFAULT.
    CharacterSet(Option<String>),
    /// SET \[scope\] TRANSACTION. `scope` is [`VariableScope::Next`] without a scope word.
    Transaction { scope: VariableScope, isolation: Option<Isolation>, read_only: Option<bool> },
}

/// Value of a SET assignment.
#[derive(Clone, Debug, PartialEq)]
pub enum SetValue {
    /// DEFAULT.
    Default,
    /// An expression; a bare word (`SET sql_mode = ANSI`, `ON`) is a string literal.
    Expr(Expr),
}

/// Isolation levels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isolation {
    /// READ UNCOMMITTED.
    ReadUncommitted,
    /// READ COMMITTED.
    ReadCommitted,
    /// REPEATABLE READ.
    RepeatableRead,
    /// SERIALIZABLE.
    Serializable,
}

/// SHOW.
#[derive(Clone, Debug, PartialEq)]
pub struct Show {
    /// What is shown.
    pub what: ShowKind,
    /// LIKE or WHERE.
    pub filter: Option<ShowFilter>,
}

/// Row filter of SHOW.
#[derive(Clone, Debug, PartialEq)]
pub enum ShowFilter {
    /// LIKE 'pattern'.
    Like(String),
    /// WHERE expr over the result's columns.
    Where(Expr),
}

/// Subject of SHOW.
#[derive(Clone, Debug, PartialEq)]
pub enum ShowKind {
    /// DATABASES, SCHEMAS.
    Databases,
    /// \[FULL\] TABLES \[FROM db\].
    Tables { full: bool, database: Option<String> },
    /// TABLE STATUS \[FROM db\].
    TableStatus { database: Option<String> },
    /// \[FULL\] COLUMNS FROM table.
    Columns { full: bool, table: ObjectName },
    /// INDEX FROM table.
    Index { table: ObjectName },
    /// CREATE TABLE.
    CreateTable(ObjectName),
    /// CREATE DATABASE.
    CreateDatabase { name: String, if_not_exists: bool },
    /// \[GLOBAL | SESSION\] VARIABLES.
    Variables { global: bool },
    /// \[GLOBAL | SESSION\] STATUS.
    Status { global: bool },
    /// WARNINGS \[LIMIT\].
    Warnings { limit: Option<Limit> },
    /// ERRORS \[LIMIT\].
    Errors { limit: Option<Limit> },
    /// COUNT(*) WARNINGS / ERRORS.
    CountWarnings { errors: bool },
    /// \[FULL\] PROCESSLIST.
    ProcessList { full: bool },
    /// ENGINES.
    Engines,
    /// ENGINE name STATUS / MUTEX.
    EngineStatus(String),
    /// COLLATION.
    Collation,
    /// CHARACTER SET.
    CharacterSet,
    /// GRANTS \[FOR user\].
    Grants { user: Option<(String, String)> },
    /// PLUGINS.
    Plugins,
    /// PRIVILEGES.
    Privileges,
    /// TRIGGERS \[FROM db\].
    Triggers { database: Option<String> },
    /// EVENTS \[FROM db\].
    Events { database: Option<String> },
    /// PROCEDURE STATUS, FUNCTION STATUS.
    Routines { function: bool },
    /// OPEN TABLES \[FROM db\].
    OpenTables { database: Option<String> },
    /// MASTER STATUS, BINARY LOG STATUS.
    MasterStatus,
    /// BINARY LOGS, MASTER LOGS.
    BinaryLogs,
    /// SLAVE STATUS, REPLICA STATUS.
    ReplicaStatus,
    /// TRANSACTION OUTCOME 'id'.
    TransactionOutcome(String),
    /// PROFILES, PROFILE.
    Profiles,
    /// Anything else, upper case, for error 1235.
    Other(String),
}
