//! Column types and column attributes.

use super::Parser;
use crate::sql::ast::{Check, ColumnDef, ColumnType, ForeignKey, IndexDef, IndexKind, IndexPart};
use crate::sql::collation::Collation;
use crate::sql::error::{Result, sql_error};
use crate::sql::types::{DECIMAL_MAX_PRECISION, DECIMAL_MAX_SCALE, DataType, TypeKind};

/// Where a type stands: CHAR without a length is 1 in a column, unbounded in CAST.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum TypeUse {
    Column,
    Cast,
}

/// What a column definition brings besides the column.
#[derive(Default)]
pub(super) struct ColumnExtras {
    pub indexes: Vec<IndexDef>,
    pub checks: Vec<Check>,
    pub foreign_keys: Vec<ForeignKey>,
}

/// Kinds by their MySQL names.
fn simple_kind(word: &str) -> Option<TypeKind> {
    Some(match word {
        "TINYINT" | "INT1" => TypeKind::Tiny,
        "SMALLINT" | "INT2" => TypeKind::Small,
        "MEDIUMINT" | "MIDDLEINT" | "INT3" => TypeKind::Medium,
        "INT" | "INTEGER" | "INT4" => TypeKind::Int,
        "BIGINT" | "INT8" => TypeKind::Big,
        "DECIMAL" | "NUMERIC" | "DEC" | "FIXED" => TypeKind::Decimal,
        "FLOAT" | "FLOAT4" => TypeKind::Float,
        "DOUBLE" | "REAL" | "FLOAT8" => TypeKind::Double,
        "DATE" => TypeKind::Date,
        "TIME" => TypeKind::Time,
        "DATETIME" => TypeKind::DateTime,
        "TIMESTAMP" => TypeKind::Timestamp,
        "YEAR" => TypeKind::Year,
        "JSON" => TypeKind::Json,
        "TINYTEXT" | "TINYBLOB" => TypeKind::TinyText,
        "TEXT" | "BLOB" => TypeKind::Text,
        "MEDIUMTEXT" | "MEDIUMBLOB" => TypeKind::MediumText,
        "LONGTEXT" | "LONGBLOB" => TypeKind::LongText,
        _ => return None,
    })
}

impl Parser<'_> {
    /// A type with its attributes; also whether it named a charset or collation.
    pub(super) fn column_type(&mut self, place: TypeUse) -> Result<(ColumnType, bool)> {
        let word = self.any_word()?;
        let plain = |ty| Ok((ColumnType::Plain(ty), false));
        if let Some(kind) = simple_kind(&word) {
            if matches!(kind, TypeKind::TinyText | TypeKind::Text | TypeKind::MediumText | TypeKind::LongText) {
                return self.blob_type(kind, word.ends_with("BLOB"));
            }
            if word == "DOUBLE" {
                self.eat("PRECISION");
            }
            return plain(self.number_or_time(kind)?);
        }
        match word.as_str() {
            "BOOL" | "BOOLEAN" => plain(DataType { precision: 1, ..DataType::new(TypeKind::Tiny) }),
            "SERIAL" => plain(DataType::UBIGINT),
            "BIT" => {
                let bits = self.optional_length()?.unwrap_or(1);
                Ok((ColumnType::Bit(bits.min(64) as u8), false))
            }
            "ENUM" | "SET" => {
                let members = self.paren_list(Self::text)?;
                let (_, given) = self.charset_clause(Collation::default())?;
                Ok((if word == "ENUM" { ColumnType::Enum(members) } else { ColumnType::Set(members) }, given))
            }
            "GEOMETRY" | "POINT" | "LINESTRING" | "POLYGON" | "MULTIPOINT" | "MULTILINESTRING" | "MULTIPOLYGON"
            | "GEOMETRYCOLLECTION" | "GEOMCOLLECTION" => Ok((ColumnType::Spatial(word), false)),
            "BINARY" | "VARBINARY" => {
                let kind = if word == "BINARY" { TypeKind::Char } else { TypeKind::VarChar };
                let length = self.string_length(kind, place)?;
                if place == TypeUse::Cast && length == u32::MAX {
                    return plain(DataType::text(Collation::Binary));
                }
                plain(DataType { length, ..DataType::new(kind) })
            }
            "NATIONAL" | "CHAR" | "CHARACTER" | "VARCHAR" | "VARCHARACTER" | "NCHAR" | "NVARCHAR" | "LONG" => {
                self.char_type(&word, place)
            }
            _ => {
                self.at -= 1;
                self.fail()
            }
        }
    }

    fn char_type(&mut self, word: &str, place: TypeUse) -> Result<(ColumnType, bool)> {
        let mut word = word.to_owned();
        if word == "LONG" {
            let binary = self.eat("VARBINARY");
            let _ = !binary && (self.eat("VARCHAR") || self.eat("VARCHARACTER"));
            return self.blob_type(TypeKind::MediumText, binary);
        }
        let national = word.starts_with('N');
        if word == "NATIONAL" {
            word = self.any_word()?;
        }
        let varying = word.contains("VAR") || self.eat("VARYING");
        let kind = if varying { TypeKind::VarChar } else { TypeKind::Char };
        let length = self.string_length(kind, place)?;
        let default = if national { Collation::Utf8mb3GeneralCi } else { Collation::default() };
        let (collation, given) = self.charset_clause(default)?;
        Ok((ColumnType::Plain(DataType { length, collation, ..DataType::new(kind) }), given || national))
    }

    fn blob_type(&mut self, kind: TypeKind, binary: bool) -> Result<(ColumnType, bool)> {
        let length = self.optional_length()?;
        // TEXT(n) is the smallest that holds n bytes.
        let kind = match length {
            Some(0..=255) if kind == TypeKind::Text => TypeKind::TinyText,
            Some(65_536..=16_777_215) if kind == TypeKind::Text => TypeKind::MediumText,
            Some(16_777_216..) if kind == TypeKind::Text => TypeKind::LongText,
            _ => kind,
        };
        if binary {
            return Ok((ColumnType::Plain(DataType::new(kind)), false));
        }
        let (collation, given) = self.charset_clause(Collation::default())?;
        Ok((ColumnType::Plain(DataType { collation, ..DataType::new(kind) }), given))
    }

    fn number_or_time(&mut self, kind: TypeKind) -> Result<DataType> {
        let mut ty = DataType::new(kind);
        match kind {
            TypeKind::Date | TypeKind::Json => return Ok(ty),
            TypeKind::Time | TypeKind::DateTime | TypeKind::Timestamp => {
                let fsp = self.optional_length()?.unwrap_or(0);
                if fsp > 6 {
                    return Err(sql_error(
                        1426,
                        format!("Too-big precision {fsp} specified for column. Maximum is 6."),
                    ));
                }
                ty.scale = fsp as u8;
                return Ok(ty);
            }
            TypeKind::Decimal => {
                let (precision, scale) = self.optional_pair()?;
                ty = checked_decimal(precision.unwrap_or(10), scale.unwrap_or(0))?;
            }
            TypeKind::Float | TypeKind::Double => match self.optional_pair()? {
                (Some(precision), Some(scale)) => {
                    let checked = checked_decimal(precision.min(255), scale)?;
                    ty = DataType { precision: checked.precision, scale: checked.scale, ..ty };
                }
                (Some(25..=53), None) => ty = DataType::DOUBLE,
                (Some(54..), None) => return Err(sql_error(1063, "Incorrect column specifier for column ''")),
                _ => {}
            },
            _ => {
                let width = self.optional_length()?;
                // Display widths are gone, but for TINYINT(1).
                ty.precision = u8::from(kind == TypeKind::Tiny && width == Some(1));
            }
        }
        while let Some(which) = self.eat_any(&["UNSIGNED", "SIGNED", "ZEROFILL"]) {
            ty.unsigned |= which != 1;
            ty.zerofill |= which == 2;
        }
        Ok(ty)
    }

    fn optional_length(&mut self) -> Result<Option<u64>> {
        if !self.eat_op("(") {
            return Ok(None);
        }
        let length = self.unsigned()?;
        self.expect_op(")")?;
        Ok(Some(length))
    }

    fn optional_pair(&mut self) -> Result<(Option<u64>, Option<u64>)> {
        if !self.eat_op("(") {
            return Ok((None, None));
        }
        let first = self.unsigned()?;
        let second = if self.eat_op(",") { Some(self.unsigned()?) } else { None };
        self.expect_op(")")?;
        Ok((Some(first), second))
    }

    fn string_length(&mut self, kind: TypeKind, place: TypeUse) -> Result<u32> {
        let length = self.optional_length()?;
        match length {
            None if place == TypeUse::Cast => Ok(u32::MAX),
            None if kind == TypeKind::Char => Ok(1),
            None => self.fail(),
            Some(length) if kind == TypeKind::Char && place == TypeUse::Column && length > 255 => {
                Err(sql_error(1074, "Column length too big for column '' (max = 255); use BLOB or TEXT instead"))
            }
            Some(length) => Ok(u32::try_from(length).unwrap_or(u32::MAX - 1)),
        }
    }

    /// CHARACTER SET x, CHARSET x, COLLATE x, BINARY, ASCII, UNICODE in any order.
    fn charset_clause(&mut self, default: Collation) -> Result<(Collation, bool)> {
        let (mut collation, mut given, mut binary) = (default, false, false);
        loop {
            if self.eat_words(&["CHARACTER", "SET"]) || self.eat_words(&["CHAR", "SET"]) || self.eat("CHARSET") {
                collation = self.charset()?;
                given = true;
            } else if self.eat("COLLATE") {
                collation = self.collation()?;
                given = true;
            } else if self.eat("BINARY") {
                binary = true;
            } else {
                break;
            }
        }
        Ok((if binary { collation.binary_of_charset() } else { collation }, given || binary))
    }

    pub(super) fn charset(&mut self) -> Result<Collation> {
        let name = self.name_or_text()?;
        Collation::default_of_charset(&name).ok_or_else(|| sql_error(1115, format!("Unknown character set: '{name}'")))
    }

    pub(super) fn collation(&mut self) -> Result<Collation> {
        let name = self.name_or_text()?;
        Collation::from_name(&name).ok_or_else(|| sql_error(1273, format!("Unknown collation: '{name}'")))
    }

    /// `name type attributes`
    pub(super) fn column_def(&mut self, extras: &mut ColumnExtras) -> Result<ColumnDef> {
        let name = self.name()?;
        let serial = self.is_word("SERIAL");
        let (ty, charset_given) = self.column_type(TypeUse::Column)?;
        let mut column = ColumnDef {
            name,
            ty,
            charset_given,
            not_null: None,
            default: None,
            on_update: None,
            auto_increment: false,
            comment: None,
            invisible: false,
            generated: None,
        };
        if serial {
            column.not_null = Some(true);
            column.auto_increment = true;
            extras.indexes.push(column_index(&column.name, IndexKind::Unique));
        }
        while self.column_attribute(&mut column, extras)? {}
        Ok(column)
    }

    /// Takes one attribute; false if there is none.
    fn column_attribute(&mut self, column: &mut ColumnDef, extras: &mut ColumnExtras) -> Result<bool> {
        if self.eat_words(&["NOT", "NULL"]) {
            column.not_null = Some(true);
        } else if self.eat("NULL") {
            column.not_null = Some(false);
        } else if self.eat("DEFAULT") {
            column.default = Some(self.signed_literal()?);
        } else if self.eat_words(&["ON", "UPDATE"]) {
            column.on_update = Some(self.signed_literal()?);
        } else if self.eat("AUTO_INCREMENT") {
            column.auto_increment = true;
        } else if self.eat_words(&["PRIMARY", "KEY"]) || self.eat("KEY") {
            extras.indexes.push(column_index(&column.name, IndexKind::Primary));
        } else if self.eat("UNIQUE") {
            self.eat("KEY");
            extras.indexes.push(column_index(&column.name, IndexKind::Unique));
        } else if self.eat("COMMENT") {
            column.comment = Some(self.text()?);
        } else if self.eat("VISIBLE") {
            column.invisible = false;
        } else if self.eat("INVISIBLE") {
            column.invisible = true;
        } else if self.eat("COLLATE") {
            let collation = self.collation()?;
            column.charset_given = true;
            if let ColumnType::Plain(ty) = &mut column.ty
                && ty.is_string()
            {
                ty.collation = collation;
            }
        } else if self.eat("COLUMN_FORMAT") || self.eat("STORAGE") || self.eat("ENGINE_ATTRIBUTE") {
            self.eat_op("=");
            self.name_or_text()?;
        } else if self.eat("SRID") {
            self.unsigned()?;
        } else if self.eat_words(&["GENERATED", "ALWAYS", "AS"]) || (self.is_word("AS") && self.eat("AS")) {
            self.expect_op("(")?;
            let expr = self.expr()?;
            self.expect_op(")")?;
            let stored = self.eat("STORED");
            self.eat("VIRTUAL");
            column.generated = Some((expr, stored));
        } else if self.is_word("REFERENCES") {
            let columns = vec![column.name.clone()];
            // MySQL parses and ignores inline REFERENCES; exec decides.
            extras.foreign_keys.push(self.references(None, columns)?);
        } else if self.is_word("CHECK") || self.is_word("CONSTRAINT") {
            let name = if self.eat("CONSTRAINT") && !self.is_word("CHECK") { Some(self.name()?) } else { None };
            extras.checks.push(self.check(name)?);
        } else {
            return Ok(false);
        }
        Ok(true)
    }

    pub(super) fn check(&mut self, name: Option<String>) -> Result<Check> {
        self.expect("CHECK")?;
        self.expect_op("(")?;
        let expr = self.expr()?;
        self.expect_op(")")?;
        let enforced = !self.eat_words(&["NOT", "ENFORCED"]);
        self.eat("ENFORCED");
        Ok(Check { name, expr, enforced })
    }

    pub(super) fn references(&mut self, name: Option<String>, columns: Vec<String>) -> Result<ForeignKey> {
        self.expect("REFERENCES")?;
        let table = self.object_name()?;
        let referenced = if self.is_op("(") { self.paren_list(Self::name)? } else { Vec::new() };
        let mut key = ForeignKey { name, columns, table, referenced, on_delete: None, on_update: None };
        loop {
            if self.eat("MATCH") {
                self.any_word()?;
            } else if self.eat_words(&["ON", "DELETE"]) {
                key.on_delete = Some(self.reference_action()?);
            } else if self.eat_words(&["ON", "UPDATE"]) {
                key.on_update = Some(self.reference_action()?);
            } else {
                return Ok(key);
            }
        }
    }

    fn reference_action(&mut self) -> Result<String> {
        for words in [&["SET", "NULL"], &["SET", "DEFAULT"], &["NO", "ACTION"]] {
            if self.eat_words(words) {
                return Ok(words.join(" "));
            }
        }
        match self.eat_any(&["RESTRICT", "CASCADE"]) {
            Some(0) => Ok("RESTRICT".into()),
            Some(_) => Ok("CASCADE".into()),
            None => self.fail(),
        }
    }
}

fn checked_decimal(precision: u64, scale: u64) -> Result<DataType> {
    if scale > u64::from(DECIMAL_MAX_SCALE) {
        return Err(sql_error(
            1425,
            format!("Too big scale {scale} specified for column ''. Maximum is {DECIMAL_MAX_SCALE}."),
        ));
    }
    let precision = if precision == 0 { 10 } else { precision };
    if precision > u64::from(DECIMAL_MAX_PRECISION) {
        return Err(sql_error(
            1426,
            format!("Too-big precision {precision} specified for ''. Maximum is {DECIMAL_MAX_PRECISION}."),
        ));
    }
    if scale > precision {
        return Err(sql_error(1427, "For float(M,D), double(M,D) or decimal(M,D), M must be >= D (column '')."));
    }
    Ok(DataType::decimal(precision as u32, scale as u32))
}

/// An index written on a column.
fn column_index(column: &str, kind: IndexKind) -> IndexDef {
    let part = IndexPart { column: column.to_owned(), prefix: None, descending: false, expr: None };
    IndexDef { name: None, kind, parts: vec![part], comment: None, invisible: false }
}
