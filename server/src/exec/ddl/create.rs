//! Turns CREATE TABLE into a table definition, with MySQL's checks. Pure.

use crate::{
    catalog::{Column, ColumnDefault, StoredIndex, StoredPart, StoredTable, stored_column},
    errmap::{error, unsupported},
    sql::{
        ast::{self, ColumnDef, ColumnType, CreateTable, Expr, IndexDef, IndexKind, TableOption},
        collation::Collation,
        types::{DataType, TypeKind},
        value::Value,
    },
    wire::result::SqlError,
};

type Result<T> = std::result::Result<T, SqlError>;

/// Converts a constant DEFAULT to the column's type; the session's evaluator does it.
pub type EvalDefault<'a> = &'a dyn Fn(&Expr, &DataType) -> Result<Value>;

const NAME_MAX: usize = 64;
const COLUMNS_MAX: usize = 1017;
const INDEXES_MAX: usize = 64;
/// InnoDB's limit on the parts of one key.
const PARTS_MAX: usize = 16;

/// Table-wide options that have an effect here.
#[derive(Clone, Debug)]
pub struct Options {
    pub collation: Collation,
    pub comment: String,
    pub auto_start: u64,
}

/// Builds the stored definition of a new table.
pub fn definition(create: &CreateTable, database: Collation, now: i64, eval: EvalDefault<'_>) -> Result<StoredTable> {
    refuse_unsupported(create)?;
    check_name(&create.name.name)?;
    let mut options = Options { collation: database, comment: String::new(), auto_start: 0 };
    apply_options(&create.options, &mut options)?;
    if create.columns.is_empty() {
        return Err(error(1113, "A table must have at least 1 column"));
    }
    if create.columns.len() > COLUMNS_MAX {
        return Err(error(1117, "Too many columns"));
    }
    let primary = one_primary(&create.indexes)?;
    let mut columns: Vec<Column> = Vec::with_capacity(create.columns.len());
    for def in &create.columns {
        if columns.iter().any(|c| c.name.eq_ignore_ascii_case(&def.name)) {
            return Err(error(1060, format!("Duplicate column name '{}'", def.name)));
        }
        let in_primary =
            primary.is_some_and(|p| p.parts.iter().any(|part| part.column.eq_ignore_ascii_case(&def.name)));
        columns.push(column(def, in_primary, options.collation, eval)?);
    }
    let primary_parts = match primary {
        Some(def) => parts(def, &columns)?,
        None => Vec::new(),
    };
    let mut indexes = Vec::new();
    let mut next_index = 1;
    for def in create.indexes.iter().filter(|d| d.kind != IndexKind::Primary) {
        indexes.push(index(def, next_index, &columns, &indexes)?);
        next_index += 1;
    }
    if indexes.len() >= INDEXES_MAX {
        return Err(error(1069, format!("Too many keys specified; max {INDEXES_MAX} keys allowed")));
    }
    sort_indexes(&mut indexes, &columns);
    check_auto_increment(&columns, &primary_parts, &indexes)?;
    Ok(StoredTable {
        id: 0,
        version: 1,
        columns: columns
            .iter()
            .map(stored_column)
            .collect::<std::result::Result<_, _>>()
            .map_err(|e| error(1067, e))?,
        primary: primary_parts,
        indexes,
        next_index,
        collation: options.collation.id(),
        comment: options.comment,
        created: now,
        auto_start: options.auto_start,
    })
}

fn refuse_unsupported(create: &CreateTable) -> Result<()> {
    if create.temporary {
        return Err(unsupported("CREATE TEMPORARY TABLE"));
    }
    if create.partitioned {
        return Err(unsupported("PARTITION BY"));
    }
    if create.query.is_some() {
        return Err(unsupported("CREATE TABLE ... SELECT"));
    }
    if !create.foreign_keys.is_empty() {
        return Err(unsupported("FOREIGN KEY"));
    }
    if !create.checks.is_empty() {
        return Err(unsupported("CHECK constraints"));
    }
    Ok(())
}

/// 1059, 1103.
pub fn check_name(name: &str) -> Result<()> {
    if name.chars().count() > NAME_MAX {
        return Err(error(1059, format!("Identifier name '{name}' is too long")));
    }
    if name.is_empty() || name.ends_with(' ') || name.contains('\0') {
        return Err(error(1103, format!("Incorrect table name '{name}'")));
    }
    Ok(())
}

/// Applies table options; those without meaning here that MySQL's own InnoDB ignores too are accepted.
pub fn apply_options(given: &[TableOption], options: &mut Options) -> Result<()> {
    for option in given {
        let value = option.value.as_str();
        match option.name.as_str() {
            "ENGINE" | "STORAGE ENGINE" => check_engine(value)?,
            "CHARSET" | "CHARACTER SET" | "DEFAULT CHARSET" => options.collation = charset_collation(value)?,
            "COLLATE" => options.collation = collation(value)?,
            "COMMENT" => options.comment = value.to_owned(),
            "AUTO_INCREMENT" => {
                options.auto_start =
                    value.parse().map_err(|_| error(1064, format!("Incorrect AUTO_INCREMENT value '{value}'")))?;
            }
            // Storage hints: InnoDB takes them, and they promise nothing to the reader of the data.
            "ROW_FORMAT" | "KEY_BLOCK_SIZE" | "STATS_PERSISTENT" | "STATS_AUTO_RECALC" | "STATS_SAMPLE_PAGES"
            | "PACK_KEYS" | "MAX_ROWS" | "MIN_ROWS" | "AVG_ROW_LENGTH" | "CHECKSUM" | "DELAY_KEY_WRITE" => {}
            other => return Err(unsupported(format!("table option {other}"))),
        }
    }
    Ok(())
}

fn check_engine(name: &str) -> Result<()> {
    match name.eq_ignore_ascii_case("innodb") || name.eq_ignore_ascii_case("holdfast") {
        true => Ok(()),
        false => Err(error(1286, format!("Unknown storage engine '{name}'"))),
    }
}

/// Default collation of a character set: 1115.
pub fn charset_collation(charset: &str) -> Result<Collation> {
    Collation::default_of_charset(charset).ok_or_else(|| error(1115, format!("Unknown character set: '{charset}'")))
}

/// 1273.
pub fn collation(name: &str) -> Result<Collation> {
    Collation::from_name(name).ok_or_else(|| error(1273, format!("Unknown collation: '{name}'")))
}

fn one_primary(indexes: &[IndexDef]) -> Result<Option<&IndexDef>> {
    let mut all = indexes.iter().filter(|i| i.kind == IndexKind::Primary);
    let first = all.next();
    match all.next() {
        Some(_) => Err(error(1068, "Multiple primary key defined")),
        None => Ok(first),
    }
}

/// One column, its type completed and its default converted.
pub fn column(def: &ColumnDef, in_primary: bool, table: Collation, eval: EvalDefault<'_>) -> Result<Column> {
    check_name(&def.name)?;
    let mut ty = match &def.ty {
        ColumnType::Plain(ty) => *ty,
        ColumnType::Enum(_) => return Err(unsupported("ENUM columns")),
        ColumnType::Set(_) => return Err(unsupported("SET columns")),
        ColumnType::Bit(_) => return Err(unsupported("BIT columns")),
        ColumnType::Spatial(name) => return Err(unsupported(format!("{name} columns"))),
    };
    if def.generated.is_some() {
        return Err(unsupported("generated columns"));
    }
    if ty.is_string() && !ty.is_binary() && !def.charset_given {
        ty.collation = table;
    }
    check_type(&def.name, &ty)?;
    if in_primary && def.not_null == Some(false) {
        return Err(error(
            1171,
            "All parts of a PRIMARY KEY must be NOT NULL; if you need NULL in a key, use UNIQUE instead",
        ));
    }
    let nullable = !in_primary && !def.auto_increment && def.not_null != Some(true);
    if def.auto_increment && !(ty.is_integer() && ty.kind != TypeKind::Year) {
        return Err(error(1063, format!("Incorrect column specifier for column '{}'", def.name)));
    }
    let default = default(def, &ty, nullable, eval)?;
    let on_update_now = match &def.on_update {
        None => false,
        Some(e) if is_now(e) && matches!(ty.kind, TypeKind::DateTime | TypeKind::Timestamp) => true,
        Some(_) => return Err(error(1294, format!("Invalid ON UPDATE clause for '{}' column", def.name))),
    };
    Ok(Column {
        name: def.name.clone(),
        ty,
        nullable,
        default,
        on_update_now,
        auto_increment: def.auto_increment,
        comment: def.comment.clone().unwrap_or_default(),
        invisible: def.invisible,
        instant: Value::Null,
    })
}

fn check_type(name: &str, ty: &DataType) -> Result<()> {
    let bytes = u64::from(ty.length) * u64::from(ty.collation.max_bytes_per_char());
    match ty.kind {
        TypeKind::Char if ty.length > 255 => {
            Err(error(1074, format!("Column length too big for column '{name}' (max = 255); use BLOB or TEXT instead")))
        }
        TypeKind::VarChar if bytes > 65_535 => {
            let max = 65_535 / ty.collation.max_bytes_per_char();
            Err(error(
                1074,
                format!("Column length too big for column '{name}' (max = {max}); use BLOB or TEXT instead"),
            ))
        }
        _ => Ok(()),
    }
}

fn default(def: &ColumnDef, ty: &DataType, nullable: bool, eval: EvalDefault<'_>) -> Result<ColumnDefault> {
    let invalid = || error(1067, format!("Invalid default value for '{}'", def.name));
    let Some(e) = &def.default else {
        return Ok(if nullable { ColumnDefault::Value(Value::Null) } else { ColumnDefault::None });
    };
    if matches!(e, Expr::Literal(Value::Null)) {
        return if nullable { Ok(ColumnDefault::Value(Value::Null)) } else { Err(invalid()) };
    }
    if ty.is_blob() || ty.kind == TypeKind::Json {
        return Err(error(
            1101,
            format!("BLOB, TEXT, GEOMETRY or JSON column '{}' can't have a default value", def.name),
        ));
    }
    if def.auto_increment {
        return Err(invalid());
    }
    if is_now(e) {
        let fits = matches!(ty.kind, TypeKind::DateTime | TypeKind::Timestamp);
        return if fits { Ok(ColumnDefault::Now) } else { Err(invalid()) };
    }
    if !matches!(e, Expr::Literal(_) | Expr::HexLiteral(_) | Expr::Unary(..) | Expr::Using { .. }) {
        return Err(unsupported("expression as DEFAULT"));
    }
    eval(e, ty).map(ColumnDefault::Value).map_err(|_| invalid())
}

/// The default of ALTER COLUMN ... SET DEFAULT.
pub fn checked_default(column: &Column, e: &Expr, eval: EvalDefault<'_>) -> Result<ColumnDefault> {
    let def = ColumnDef {
        name: column.name.clone(),
        ty: ColumnType::Plain(column.ty),
        charset_given: true,
        not_null: Some(!column.nullable),
        default: Some(e.clone()),
        on_update: None,
        auto_increment: column.auto_increment,
        comment: None,
        invisible: column.invisible,
        generated: None,
    };
    default(&def, &column.ty, column.nullable, eval)
}

fn is_now(e: &Expr) -> bool {
    matches!(e, Expr::Call { name, .. } if matches!(name.as_str(), "CURRENT_TIMESTAMP" | "NOW" | "LOCALTIME" | "LOCALTIMESTAMP"))
}

/// The parts of an index, checked: 1072, 1060, 1170, 1089, 1070.
pub fn parts(def: &IndexDef, columns: &[Column]) -> Result<Vec<StoredPart>> {
    if def.parts.len() > PARTS_MAX {
        return Err(error(1070, format!("Too many key parts specified; max {PARTS_MAX} parts allowed")));
    }
    let mut out: Vec<StoredPart> = Vec::with_capacity(def.parts.len());
    for part in &def.parts {
        if part.expr.is_some() {
            return Err(unsupported("expression in an index"));
        }
        if part.descending {
            return Err(unsupported("descending index"));
        }
        let at = columns.iter().position(|c| c.name.eq_ignore_ascii_case(&part.column));
        let at = at.ok_or_else(|| error(1072, format!("Key column '{}' doesn't exist in table", part.column)))?;
        if out.iter().any(|p| p.column as usize == at) {
            return Err(error(1060, format!("Duplicate column name '{}'", part.column)));
        }
        let ty = &columns[at].ty;
        if ty.kind == TypeKind::Json {
            return Err(error(
                3152,
                format!(
                    "JSON column '{}' supports indexing only via generated columns on a specified JSON path.",
                    part.column
                ),
            ));
        }
        if ty.is_blob() && part.prefix.is_none() {
            return Err(error(
                1170,
                format!("BLOB/TEXT column '{}' used in key specification without a key length", part.column),
            ));
        }
        let prefix = match part.prefix {
            Some(0) => return Err(error(1391, format!("Key part '{}' length cannot be 0", part.column))),
            Some(_) if !ty.is_string() => {
                return Err(error(
                    1089,
                    "Incorrect prefix key; the used key part isn't a string, the used length is longer than the key part, or the storage engine doesn't support unique prefix keys",
                ));
            }
            Some(n) if !ty.is_blob() && n >= ty.length => None,
            other => other,
        };
        let chars = prefix.unwrap_or(ty.length);
        if ty.is_string()
            && u64::from(chars) * u64::from(ty.collation.max_bytes_per_char()) > crate::key::MAX_KEY as u64
        {
            return Err(error(1071, "Specified key was too long; max key length is 3072 bytes"));
        }
        out.push(StoredPart { column: at as u16, prefix });
    }
    Ok(out)
}

/// One secondary index; `others` are those that have a name already.
pub fn index(def: &IndexDef, id: u16, columns: &[Column], others: &[StoredIndex]) -> Result<StoredIndex> {
    match def.kind {
        IndexKind::FullText => return Err(unsupported("FULLTEXT index")),
        IndexKind::Spatial => return Err(unsupported("SPATIAL index")),
        IndexKind::Primary | IndexKind::Unique | IndexKind::Plain => {}
    }
    let parts = parts(def, columns)?;
    let taken = |name: &str| others.iter().any(|i| i.name.eq_ignore_ascii_case(name));
    let name = match &def.name {
        Some(name) if taken(name) => return Err(error(1061, format!("Duplicate key name '{name}'"))),
        Some(name) if name.eq_ignore_ascii_case("PRIMARY") => {
            return Err(error(1280, format!("Incorrect index name '{name}'")));
        }
        Some(name) => name.clone(),
        None => {
            let first = parts.first().map_or("key", |p| columns[p.column as usize].name.as_str());
            let numbered = (2..).map(|n| format!("{first}_{n}"));
            std::iter::once(first.to_owned()).chain(numbered).find(|n| !taken(n)).unwrap_or_default()
        }
    };
    check_name(&name)?;
    Ok(StoredIndex {
        id,
        name,
        unique: def.kind == IndexKind::Unique,
        parts,
        building: false,
        comment: def.comment.clone().unwrap_or_default(),
        invisible: def.invisible,
    })
}

/// MySQL's order: unique without NULLs, unique, the rest; each in the order of creation.
pub fn sort_indexes(indexes: &mut [StoredIndex], columns: &[Column]) {
    indexes.sort_by_key(|i| match i.unique {
        true if i.parts.iter().all(|p| !columns[p.column as usize].nullable) => 0,
        true => 1,
        false => 2,
    });
}

/// 1075: one AUTO_INCREMENT column, first in some key.
pub fn check_auto_increment(columns: &[Column], primary: &[StoredPart], indexes: &[StoredIndex]) -> Result<()> {
    let mut auto = columns.iter().enumerate().filter(|(_, c)| c.auto_increment);
    let Some((at, _)) = auto.next() else { return Ok(()) };
    let keyed = |parts: &[StoredPart]| parts.first().is_some_and(|p| p.column as usize == at);
    if auto.next().is_some() || !(keyed(primary) || indexes.iter().any(|i| keyed(&i.parts))) {
        return Err(error(
            1075,
            "Incorrect table definition; there can be only one auto column and it must be defined as a key",
        ));
    }
    Ok(())
}

/// Name and kind of the object that a statement names, with the current database filled in.
pub fn qualified<'a>(name: &'a ast::ObjectName, current: Option<&'a str>) -> Result<(&'a str, &'a str)> {
    match name.database.as_deref().or(current) {
        Some(database) => Ok((database, &name.name)),
        None => Err(crate::errmap::no_database()),
    }
}
