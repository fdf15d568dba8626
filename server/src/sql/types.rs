//! Owns SQL types: what a column or expression is declared as, and how the wire names it.

use super::collation::Collation;

/// The kind of a type, without its length, sign or collation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum TypeKind {
    /// Type of a bare NULL, and of a parameter before it is bound.
    Null = 0,
    /// TINYINT, BOOL.
    Tiny = 1,
    /// SMALLINT.
    Small = 2,
    /// MEDIUMINT.
    Medium = 3,
    /// INT.
    Int = 4,
    /// BIGINT.
    Big = 5,
    /// DECIMAL(precision, scale).
    Decimal = 6,
    /// FLOAT.
    Float = 7,
    /// DOUBLE.
    Double = 8,
    /// DATE.
    Date = 9,
    /// TIME(scale).
    Time = 10,
    /// DATETIME(scale).
    DateTime = 11,
    /// TIMESTAMP(scale).
    Timestamp = 12,
    /// YEAR.
    Year = 13,
    /// CHAR(length), or BINARY(length) with the binary collation.
    Char = 14,
    /// VARCHAR(length), or VARBINARY(length) with the binary collation.
    VarChar = 15,
    /// TINYTEXT, TINYBLOB.
    TinyText = 16,
    /// TEXT, BLOB.
    Text = 17,
    /// MEDIUMTEXT, MEDIUMBLOB.
    MediumText = 18,
    /// LONGTEXT, LONGBLOB.
    LongText = 19,
    /// JSON.
    Json = 20,
}

/// A full type. Binary strings are the string kinds with [`Collation::Binary`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct DataType {
    /// What it is.
    pub kind: TypeKind,
    /// UNSIGNED, for numbers.
    pub unsigned: bool,
    /// ZEROFILL.
    pub zerofill: bool,
    /// Digits of a decimal, display width of an integer (0 if none was given).
    pub precision: u8,
    /// Decimal places of a number, fractional second digits of a time. 31 means floating ("not fixed").
    pub scale: u8,
    /// Characters (text) or bytes (binary) of a string; 0 for others.
    pub length: u32,
    /// Collation of text; binary for everything else.
    pub collation: Collation,
}

/// `scale` of FLOAT and DOUBLE without fixed decimals.
pub const NOT_FIXED: u8 = 31;
/// Most digits of a DECIMAL.
pub const DECIMAL_MAX_PRECISION: u8 = 65;
/// Most decimal places of a DECIMAL.
pub const DECIMAL_MAX_SCALE: u8 = 30;

impl DataType {
    /// A type with nothing but its kind.
    pub const fn new(kind: TypeKind) -> Self {
        let scale = match kind {
            TypeKind::Float | TypeKind::Double => NOT_FIXED,
            _ => 0,
        };
        Self { kind, unsigned: false, zerofill: false, precision: 0, scale, length: 0, collation: Collation::Binary }
    }
    /// Type of NULL.
    pub const NULL: Self = Self::new(TypeKind::Null);
    /// BIGINT.
    pub const BIGINT: Self = Self::new(TypeKind::Big);
    /// INT.
    pub const INT: Self = Self::new(TypeKind::Int);
    /// DOUBLE.
    pub const DOUBLE: Self = Self::new(TypeKind::Double);
    /// DATE.
    pub const DATE: Self = Self::new(TypeKind::Date);
    /// JSON.
    pub const JSON: Self = Self::new(TypeKind::Json);
    /// Result of a predicate.
    pub const BOOL: Self = Self { precision: 1, ..Self::new(TypeKind::Int) };
    /// BIGINT UNSIGNED.
    pub const UBIGINT: Self = Self { unsigned: true, ..Self::new(TypeKind::Big) };

    /// DECIMAL(precision, scale), capped to MySQL's limits.
    pub fn decimal(precision: u32, scale: u32) -> Self {
        let scale = scale.min(u32::from(DECIMAL_MAX_SCALE)) as u8;
        let precision = (precision.min(u32::from(DECIMAL_MAX_PRECISION)) as u8).max(scale).max(1);
        Self { precision, scale, ..Self::new(TypeKind::Decimal) }
    }
    /// VARCHAR of `length` characters.
    pub const fn varchar(length: u32, collation: Collation) -> Self {
        Self { length, collation, ..Self::new(TypeKind::VarChar) }
    }
    /// LONGTEXT.
    pub const fn text(collation: Collation) -> Self {
        Self { length: u32::MAX, collation, ..Self::new(TypeKind::LongText) }
    }
    /// TIME(fsp).
    pub const fn time(fsp: u8) -> Self {
        Self { scale: fsp, ..Self::new(TypeKind::Time) }
    }
    /// DATETIME(fsp).
    pub const fn datetime(fsp: u8) -> Self {
        Self { scale: fsp, ..Self::new(TypeKind::DateTime) }
    }

    /// An integer type (YEAR included).
    pub fn is_integer(&self) -> bool {
        matches!(
            self.kind,
            TypeKind::Tiny | TypeKind::Small | TypeKind::Medium | TypeKind::Int | TypeKind::Big | TypeKind::Year
        )
    }
    /// Integer, decimal or floating.
    pub fn is_number(&self) -> bool {
        self.is_integer() || matches!(self.kind, TypeKind::Decimal | TypeKind::Float | TypeKind::Double)
    }
    /// Text or binary string, TEXT and BLOB included.
    pub fn is_string(&self) -> bool {
        matches!(
            self.kind,
            TypeKind::Char
                | TypeKind::VarChar
                | TypeKind::TinyText
                | TypeKind::Text
                | TypeKind::MediumText
                | TypeKind::LongText
        )
    }
    /// TINYTEXT..LONGTEXT and the BLOBs.
    pub fn is_blob(&self) -> bool {
        matches!(self.kind, TypeKind::TinyText | TypeKind::Text | TypeKind::MediumText | TypeKind::LongText)
    }
    /// A string without character set.
    pub fn is_binary(&self) -> bool {
        self.is_string() && self.collation == Collation::Binary
    }
    /// DATE, TIME, DATETIME or TIMESTAMP.
    pub fn is_temporal(&self) -> bool {
        matches!(self.kind, TypeKind::Date | TypeKind::Time | TypeKind::DateTime | TypeKind::Timestamp)
    }

    /// Smallest and largest value of an integer type.
    pub fn integer_range(&self) -> (i128, i128) {
        let bits = match self.kind {
            TypeKind::Tiny => 8,
            TypeKind::Small => 16,
            TypeKind::Medium => 24,
            TypeKind::Int => 32,
            TypeKind::Year => return (0, 2155),
            _ => 64,
        };
        if self.unsigned { (0, (1i128 << bits) - 1) } else { (-(1i128 << (bits - 1)), (1i128 << (bits - 1)) - 1) }
    }

    /// Decimal digits before the point that a value of this type can have; 17 for floating numbers and strings.
    pub fn integer_digits(&self) -> u32 {
        match self.kind {
            TypeKind::Tiny => 3,
            TypeKind::Small => 5,
            TypeKind::Medium => 8,
            TypeKind::Int => 10,
            TypeKind::Year => 4,
            TypeKind::Big => 20 - u32::from(!self.unsigned),
            TypeKind::Decimal => u32::from(self.precision.saturating_sub(self.scale)),
            TypeKind::Date => 8,
            TypeKind::Time => 7,
            TypeKind::DateTime | TypeKind::Timestamp => 14,
            _ => 17,
        }
    }

    /// The protocol's MYSQL_TYPE_* byte.
    pub fn type_byte(&self) -> u8 {
        match self.kind {
            TypeKind::Null => 6,
            TypeKind::Tiny => 1,
            TypeKind::Small => 2,
            TypeKind::Medium => 9,
            TypeKind::Int => 3,
            TypeKind::Big => 8,
            TypeKind::Decimal => 246,
            TypeKind::Float => 4,
            TypeKind::Double => 5,
            TypeKind::Date => 10,
            TypeKind::Time => 11,
            TypeKind::DateTime => 12,
            TypeKind::Timestamp => 7,
            TypeKind::Year => 13,
            TypeKind::Char => 254,
            TypeKind::VarChar => 253,
            TypeKind::TinyText | TypeKind::Text | TypeKind::MediumText | TypeKind::LongText => 252,
            TypeKind::Json => 245,
        }
    }

    /// Longest display, in bytes, as the column definition packet states it.
    pub fn display_length(&self) -> u32 {
        let fraction = if self.scale == 0 || self.scale > 6 { 0 } else { u32::from(self.scale) + 1 };
        let width = |plain: u32| if self.precision > 0 { u32::from(self.precision) } else { plain };
        match self.kind {
            TypeKind::Null => 0,
            TypeKind::Tiny => width(4 - u32::from(self.unsigned)),
            TypeKind::Small => width(6 - u32::from(self.unsigned)),
            TypeKind::Medium => width(9 - u32::from(self.unsigned)),
            TypeKind::Int => width(11 - u32::from(self.unsigned)),
            TypeKind::Big => width(20),
            TypeKind::Year => 4,
            TypeKind::Decimal => u32::from(self.precision) + u32::from(self.scale > 0) + u32::from(!self.unsigned),
            TypeKind::Float => 12,
            TypeKind::Double => 22,
            TypeKind::Date => 10,
            TypeKind::Time => 10 + fraction,
            TypeKind::DateTime | TypeKind::Timestamp => 19 + fraction,
            TypeKind::Char | TypeKind::VarChar => self.length.saturating_mul(self.collation.max_bytes_per_char()),
            TypeKind::TinyText => 255,
            TypeKind::Text => 65_535,
            TypeKind::MediumText => 16_777_215,
            TypeKind::LongText | TypeKind::Json => u32::MAX,
        }
    }

    /// Most bytes a stored string may have; `None` where the limit is characters (CHAR, VARCHAR text).
    pub fn max_bytes(&self) -> Option<u64> {
        match self.kind {
            TypeKind::TinyText => Some(255),
            TypeKind::Text => Some(65_535),
            TypeKind::MediumText => Some(16_777_215),
            TypeKind::LongText | TypeKind::Json => Some(u64::from(u32::MAX)),
            TypeKind::Char | TypeKind::VarChar if self.is_binary() => Some(u64::from(self.length)),
            _ => None,
        }
    }
}

/// The type as SHOW CREATE TABLE and information_schema print it, such as `varchar(20)` or `int unsigned`.
impl std::fmt::Display for DataType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let binary = self.collation == Collation::Binary;
        let text = |text: &'static str, blob: &'static str| if binary { blob } else { text };
        match self.kind {
            TypeKind::Null => write!(f, "null"),
            TypeKind::Tiny if self.precision == 1 && !self.unsigned => write!(f, "tinyint(1)"),
            TypeKind::Tiny => write!(f, "tinyint"),
            TypeKind::Small => write!(f, "smallint"),
            TypeKind::Medium => write!(f, "mediumint"),
            TypeKind::Int => write!(f, "int"),
            TypeKind::Big => write!(f, "bigint"),
            TypeKind::Year => write!(f, "year"),
            TypeKind::Decimal => write!(f, "decimal({},{})", self.precision, self.scale),
            TypeKind::Float if self.scale < NOT_FIXED => write!(f, "float({},{})", self.precision, self.scale),
            TypeKind::Float => write!(f, "float"),
            TypeKind::Double if self.scale < NOT_FIXED => write!(f, "double({},{})", self.precision, self.scale),
            TypeKind::Double => write!(f, "double"),
            TypeKind::Date => write!(f, "date"),
            TypeKind::Time | TypeKind::DateTime | TypeKind::Timestamp => {
                let name = match self.kind {
                    TypeKind::Time => "time",
                    TypeKind::DateTime => "datetime",
                    _ => "timestamp",
                };
                if self.scale > 0 { write!(f, "{name}({})", self.scale) } else { write!(f, "{name}") }
            }
            TypeKind::Char => write!(f, "{}({})", text("char", "binary"), self.length),
            TypeKind::VarChar => write!(f, "{}({})", text("varchar", "varbinary"), self.length),
            TypeKind::TinyText => write!(f, "{}", text("tinytext", "tinyblob")),
            TypeKind::Text => write!(f, "{}", text("text", "blob")),
            TypeKind::MediumText => write!(f, "{}", text("mediumtext", "mediumblob")),
            TypeKind::LongText => write!(f, "{}", text("longtext", "longblob")),
            TypeKind::Json => write!(f, "json"),
        }?;
        if self.unsigned && self.is_number() {
            write!(f, " unsigned")?;
        }
        if self.zerofill {
            write!(f, " zerofill")?;
        }
        Ok(())
    }
}
