//! Calls with their own syntax: aggregates, CAST, SUBSTRING FROM, TRIM, EXTRACT, DATE_ADD and the rest of MySQL's special cases.

use super::Parser;
use super::ddl_column::TypeUse;
use crate::sql::ast::{Aggregate, AggregateKind, ColumnType, Expr, IntervalUnit, UnaryOp};
use crate::sql::error::{Result, sql_error};
use crate::sql::lexer::Tok;
use crate::sql::temporal::{parse_datetime, parse_time};
use crate::sql::types::{DataType, TypeKind};
use crate::sql::value::Value;

impl Parser<'_> {
    /// A call; the next token is its name (given in upper case), then `(`.
    pub(super) fn call(&mut self, upper: &str) -> Result<Expr> {
        if let Some(kind) = aggregate_kind(upper) {
            self.at += 2;
            return self.aggregate(kind);
        }
        self.at += 1;
        let expr = match upper {
            "CAST" => self.cast()?,
            "CONVERT" => self.convert()?,
            "SUBSTRING" | "SUBSTR" | "MID" => self.substring()?,
            "TRIM" => self.trim()?,
            "POSITION" => {
                self.expect_op("(")?;
                let needle = *self.bit_expr()?;
                self.expect("IN")?;
                let haystack = self.expr()?;
                self.expect_op(")")?;
                Expr::Call { name: "LOCATE".into(), args: vec![needle, haystack] }
            }
            "EXTRACT" => {
                self.expect_op("(")?;
                let unit = self.interval_unit()?;
                self.expect("FROM")?;
                let expr = self.boxed_expr(0)?;
                self.expect_op(")")?;
                Expr::Extract { unit, expr }
            }
            "DATE_ADD" | "ADDDATE" | "DATE_SUB" | "SUBDATE" => self.date_add(upper)?,
            "TIMESTAMPADD" | "TIMESTAMPDIFF" => self.timestamp_call(upper)?,
            "CHAR" => self.char_call()?,
            "VALUES" => {
                self.expect_op("(")?;
                let name = self.column_name()?;
                self.expect_op(")")?;
                Expr::Values(name)
            }
            "WEIGHT_STRING" | "GROUPING" | "ROW_NUMBER" | "RANK" | "DENSE_RANK" | "NTILE" | "LAG" | "LEAD"
            | "FIRST_VALUE" | "LAST_VALUE" | "NTH_VALUE" | "CUME_DIST" | "PERCENT_RANK" => {
                self.skip_statement();
                return Ok(Expr::Unsupported(upper.to_owned()));
            }
            "SELECT" | "FROM" | "WHERE" | "AND" | "OR" | "NOT" | "ON" | "AS" | "SET" | "BY" | "ORDER" | "GROUP"
            | "LIMIT" => {
                self.at -= 1;
                return self.fail();
            }
            _ => {
                let name = normal_name(upper).to_owned();
                let args = self.arguments()?;
                Expr::Call { name, args }
            }
        };
        self.no_window(expr)
    }

    fn no_window(&mut self, expr: Expr) -> Result<Expr> {
        if self.is_word("OVER") {
            self.skip_statement();
            return Ok(Expr::Unsupported("window functions".into()));
        }
        Ok(expr)
    }

    fn arguments(&mut self) -> Result<Vec<Expr>> {
        self.expect_op("(")?;
        if self.eat_op(")") {
            return Ok(Vec::new());
        }
        let args = self.comma_list(Self::expr)?;
        self.expect_op(")")?;
        Ok(args)
    }

    /// Functions that need no parentheses.
    pub(super) fn bare_call(&mut self, upper: &str) -> Option<Result<Expr>> {
        let name = match upper {
            "CURRENT_DATE" => "CURDATE",
            "CURRENT_TIME" => "CURTIME",
            "CURRENT_TIMESTAMP" | "LOCALTIME" | "LOCALTIMESTAMP" => "NOW",
            "UTC_DATE" | "UTC_TIME" | "UTC_TIMESTAMP" | "CURRENT_USER" => upper,
            _ => return None,
        };
        self.at += 1;
        Some(Ok(Expr::Call { name: name.to_owned(), args: Vec::new() }))
    }

    fn aggregate(&mut self, kind: AggregateKind) -> Result<Expr> {
        let mut found = Aggregate { kind, distinct: false, args: Vec::new(), order_by: Vec::new(), separator: None };
        if kind == AggregateKind::Count && self.eat_op("*") {
            self.expect_op(")")?;
            return self.no_window(Expr::Aggregate(Box::new(found)));
        }
        found.distinct = self.eat("DISTINCT");
        if !found.distinct {
            self.eat("ALL");
        }
        found.args = self.comma_list(Self::expr)?;
        let many = matches!(kind, AggregateKind::GroupConcat)
            || (kind == AggregateKind::Count && found.distinct)
            || (kind == AggregateKind::JsonObjectAgg && found.args.len() == 2);
        if found.args.len() > 1 && !many {
            return self.fail();
        }
        if kind == AggregateKind::GroupConcat {
            found.order_by = self.order_by()?;
            if self.eat("SEPARATOR") {
                found.separator = Some(self.text_bytes()?);
            }
        }
        self.expect_op(")")?;
        self.no_window(Expr::Aggregate(Box::new(found)))
    }

    fn cast(&mut self) -> Result<Expr> {
        self.expect_op("(")?;
        let expr = self.boxed_expr(0)?;
        self.expect("AS")?;
        let ty = self.cast_type()?;
        if self.eat("ARRAY") {
            return Ok(Expr::Unsupported("CAST(... AS ... ARRAY)".into()));
        }
        self.expect_op(")")?;
        Ok(Expr::Cast { expr, ty })
    }

    fn convert(&mut self) -> Result<Expr> {
        self.expect_op("(")?;
        let expr = self.boxed_expr(0)?;
        if self.eat("USING") {
            let charset = self.name_or_text()?;
            self.expect_op(")")?;
            return Ok(Expr::Using { expr, charset });
        }
        self.expect_op(",")?;
        let ty = self.cast_type()?;
        self.expect_op(")")?;
        Ok(Expr::Cast { expr, ty })
    }

    fn cast_type(&mut self) -> Result<DataType> {
        if let Some(which) = self.eat_any(&["SIGNED", "UNSIGNED"]) {
            let _ = self.eat("INTEGER") || self.eat("INT");
            return Ok(if which == 0 { DataType::BIGINT } else { DataType::UBIGINT });
        }
        let (ty, _) = self.column_type(TypeUse::Cast)?;
        let ColumnType::Plain(ty) = ty else { return self.fail() };
        Ok(match ty.kind {
            // Without a length the result is as long as the value.
            TypeKind::Char if ty.length == u32::MAX => DataType { kind: TypeKind::LongText, ..ty },
            TypeKind::Char if !ty.is_binary() => DataType { kind: TypeKind::VarChar, ..ty },
            TypeKind::Char
            | TypeKind::Date
            | TypeKind::DateTime
            | TypeKind::Time
            | TypeKind::Decimal
            | TypeKind::Json
            | TypeKind::Double
            | TypeKind::Float
            | TypeKind::Year => ty,
            _ => return self.fail(),
        })
    }

    /// SUBSTRING(s FROM p FOR n) and the comma form.
    fn substring(&mut self) -> Result<Expr> {
        self.expect_op("(")?;
        let mut args = vec![self.expr()?];
        if self.eat("FROM") {
            args.push(self.expr()?);
            if self.eat("FOR") {
                args.push(self.expr()?);
            }
        } else {
            while self.eat_op(",") {
                args.push(self.expr()?);
            }
        }
        self.expect_op(")")?;
        Ok(Expr::Call { name: "SUBSTRING".into(), args })
    }

    /// TRIM([BOTH | LEADING | TRAILING] [x] FROM s).
    fn trim(&mut self) -> Result<Expr> {
        self.expect_op("(")?;
        let side = self.eat_any(&["BOTH", "LEADING", "TRAILING"]);
        let name = match side {
            Some(1) => "LTRIM",
            Some(2) => "RTRIM",
            _ => "TRIM",
        };
        let mut args = Vec::new();
        if side.is_some() && self.eat("FROM") {
            args.push(self.expr()?);
        } else {
            let first = self.expr()?;
            if self.eat("FROM") {
                args.push(self.expr()?);
            } else if side.is_some() {
                return self.fail();
            }
            args.push(first);
            // Text first, then what is cut.
            if args.len() == 1 {
                self.expect_op(")")?;
                return Ok(Expr::Call { name: name.into(), args });
            }
        }
        self.expect_op(")")?;
        Ok(Expr::Call { name: name.into(), args })
    }

    fn date_add(&mut self, name: &str) -> Result<Expr> {
        self.expect_op("(")?;
        let expr = self.boxed_expr(0)?;
        self.expect_op(",")?;
        let subtract = matches!(name, "DATE_SUB" | "SUBDATE");
        let (value, unit) = if self.is_word("INTERVAL") {
            self.interval()?
        } else if matches!(name, "ADDDATE" | "SUBDATE") {
            (self.boxed_expr(0)?, IntervalUnit::Day)
        } else {
            return self.fail();
        };
        self.expect_op(")")?;
        Ok(Expr::DateAdd { expr, value, unit, subtract })
    }

    fn timestamp_call(&mut self, name: &str) -> Result<Expr> {
        self.expect_op("(")?;
        let unit = self.interval_unit()?;
        self.expect_op(",")?;
        let first = self.boxed_expr(0)?;
        self.expect_op(",")?;
        let second = self.boxed_expr(0)?;
        self.expect_op(")")?;
        Ok(if name == "TIMESTAMPADD" {
            Expr::DateAdd { expr: second, value: first, unit, subtract: false }
        } else {
            Expr::TimestampDiff { unit, from: first, to: second }
        })
    }

    /// CHAR(n, ... [USING charset]).
    fn char_call(&mut self) -> Result<Expr> {
        self.expect_op("(")?;
        let args = self.comma_list(Self::expr)?;
        let charset = if self.eat("USING") { Some(self.name_or_text()?) } else { None };
        self.expect_op(")")?;
        let call = Expr::Call { name: "CHAR".into(), args };
        Ok(match charset {
            Some(charset) => Expr::Using { expr: Box::new(call), charset },
            None => call,
        })
    }

    /// DATE'..', TIME'..', TIMESTAMP'..': the text must be one (1525).
    pub(super) fn temporal_literal(&mut self, name: &str, text: Expr) -> Result<Expr> {
        let Expr::Literal(Value::Str(bytes)) = &text else { return self.fail() };
        let shown = crate::sql::error::shown(bytes);
        let bad = |kind: &str| sql_error(1525, format!("Incorrect {kind} value: '{shown}'"));
        let value = match name {
            "DATE" => Value::Date(
                parse_datetime(bytes, false).filter(|p| p.clean && !p.has_time).ok_or_else(|| bad("DATE"))?.value.date,
            ),
            "TIME" => Value::Time(parse_time(bytes).filter(|p| p.clean).ok_or_else(|| bad("TIME"))?.value),
            _ => {
                Value::DateTime(parse_datetime(bytes, false).filter(|p| p.clean).ok_or_else(|| bad("DATETIME"))?.value)
            }
        };
        Ok(Expr::Literal(value))
    }

    /// `-1`, `1`: an integer literal with sign, for defaults.
    pub(super) fn signed_literal(&mut self) -> Result<Expr> {
        if self.eat_op("-") {
            return Ok(Expr::Unary(UnaryOp::Neg, Box::new(self.signed_literal()?)));
        }
        self.eat_op("+");
        match self.peek() {
            Tok::Number(_) | Tok::Text(_) | Tok::Hex(_) | Tok::Word(_) | Tok::Op("(") | Tok::Param => {
                self.boxed_expr(15).map(|expr| *expr)
            }
            _ => self.fail(),
        }
    }
}

fn aggregate_kind(upper: &str) -> Option<AggregateKind> {
    use AggregateKind as K;
    Some(match upper {
        "COUNT" => K::Count,
        "SUM" => K::Sum,
        "AVG" => K::Avg,
        "MIN" => K::Min,
        "MAX" => K::Max,
        "GROUP_CONCAT" => K::GroupConcat,
        "STD" | "STDDEV" | "STDDEV_POP" => K::StddevPop,
        "STDDEV_SAMP" => K::StddevSamp,
        "VARIANCE" | "VAR_POP" => K::VarPop,
        "VAR_SAMP" => K::VarSamp,
        "BIT_AND" => K::BitAnd,
        "BIT_OR" => K::BitOr,
        "BIT_XOR" => K::BitXor,
        "JSON_ARRAYAGG" => K::JsonArrayAgg,
        "JSON_OBJECTAGG" => K::JsonObjectAgg,
        "ANY_VALUE" => K::AnyValue,
        _ => return None,
    })
}

/// One name for functions that have several.
fn normal_name(upper: &str) -> &str {
    match upper {
        "CURRENT_DATE" => "CURDATE",
        "CURRENT_TIME" => "CURTIME",
        "CURRENT_TIMESTAMP" | "LOCALTIME" | "LOCALTIMESTAMP" => "NOW",
        "CHARACTER_LENGTH" => "CHAR_LENGTH",
        "OCTET_LENGTH" => "LENGTH",
        "LCASE" => "LOWER",
        "UCASE" => "UPPER",
        "POWER" => "POW",
        "CEILING" => "CEIL",
        "DAY" => "DAYOFMONTH",
        "SHA" => "SHA1",
        other => other,
    }
}
