//! SELECT, UNION, WITH, FROM and joins.

use super::{Parser, keywords};
use crate::sql::ast::{
    Cte, Expr, HintKind, IndexHint, JoinKind, Limit, LockWait, ObjectName, OrderItem, Query, QueryBody, RowLock,
    Select, SelectItem, SetOp, TableRef,
};
use crate::sql::error::Result;
use crate::sql::lexer::Tok;
use crate::sql::value::Value;

impl Parser<'_> {
    pub(super) fn parenthesized_query(&mut self) -> Result<Query> {
        self.expect_op("(")?;
        let query = self.query()?;
        self.expect_op(")")?;
        Ok(query)
    }

    /// `[WITH ...] SELECT ... [UNION ...] [ORDER BY] [LIMIT] [FOR UPDATE]`
    pub(super) fn query(&mut self) -> Result<Query> {
        self.deeper(|parser| {
            let with = if parser.eat("WITH") { parser.ctes()? } else { Vec::new() };
            let mut query = parser.query_term()?;
            while let Some(which) = parser.eat_any(&["UNION", "EXCEPT", "INTERSECT"]) {
                let op = [SetOp::Union, SetOp::Except, SetOp::Intersect][which];
                let all = parser.eat("ALL");
                if !all {
                    parser.eat("DISTINCT");
                }
                let right = parser.query_term()?;
                let body = QueryBody::SetOp { op, all, left: Box::new(query), right: Box::new(right) };
                query = Query { with: Vec::new(), body, order_by: Vec::new(), limit: None, lock: None };
            }
            parser.query_tail(&mut query)?;
            query.with = with;
            Ok(query)
        })
    }

    fn query_term(&mut self) -> Result<Query> {
        if self.is_op("(") {
            let mut inner = self.parenthesized_query()?;
            // `(SELECT ...) LIMIT 1`: the tail is the outer query's.
            if !inner.order_by.is_empty() || inner.limit.is_some() {
                return Ok(inner);
            }
            self.query_tail(&mut inner)?;
            return Ok(inner);
        }
        if self.is_word("TABLE") || self.is_word("VALUES") {
            self.skip_statement();
            let items = vec![SelectItem::Expr {
                expr: Expr::Unsupported("TABLE or VALUES statement".into()),
                alias: None,
                text: String::new(),
            }];
            return Ok(plain_query(Select { items, ..Select::default() }));
        }
        Ok(plain_query(self.select()?))
    }

    /// ORDER BY, LIMIT, INTO and locks, in any place where MySQL allows them.
    fn query_tail(&mut self, query: &mut Query) -> Result<()> {
        if self.is_word("ORDER") {
            query.order_by = self.order_by()?;
        }
        if self.is_word("LIMIT") {
            query.limit = self.limit()?;
        }
        self.into_clause(query)?;
        while let Some(lock) = self.row_lock()? {
            query.lock = Some(lock);
        }
        self.into_clause(query)
    }

    /// INTO @a, @b; INTO OUTFILE is refused when run.
    fn into_clause(&mut self, query: &mut Query) -> Result<()> {
        if !self.eat("INTO") {
            return Ok(());
        }
        let QueryBody::Select(select) = &mut query.body else { return self.fail() };
        if let Tok::UserVar(_) = self.peek() {
            select.into = self.comma_list(Self::user_variable)?;
            return Ok(());
        }
        self.skip_statement();
        select.items = vec![SelectItem::Expr {
            expr: Expr::Unsupported("SELECT ... INTO OUTFILE".into()),
            alias: None,
            text: String::new(),
        }];
        Ok(())
    }

    pub(super) fn user_variable(&mut self) -> Result<String> {
        match self.next() {
            Tok::UserVar(name) => Ok(name.into_owned()),
            _ => {
                self.at -= 1;
                self.fail()
            }
        }
    }

    fn ctes(&mut self) -> Result<Vec<Cte>> {
        let recursive = self.eat("RECURSIVE");
        self.comma_list(|parser| {
            let name = parser.name()?;
            let columns = if parser.is_op("(") { parser.paren_list(Self::name)? } else { Vec::new() };
            parser.expect("AS")?;
            Ok(Cte { name, columns, query: parser.parenthesized_query()?, recursive })
        })
    }

    fn select(&mut self) -> Result<Select> {
        self.expect("SELECT")?;
        let mut select = Select::default();
        loop {
            match self.eat_any(&[
                "ALL",
                "DISTINCT",
                "DISTINCTROW",
                "SQL_CALC_FOUND_ROWS",
                "HIGH_PRIORITY",
                "STRAIGHT_JOIN",
                "SQL_SMALL_RESULT",
                "SQL_BIG_RESULT",
                "SQL_BUFFER_RESULT",
                "SQL_NO_CACHE",
                "SQL_CACHE",
            ]) {
                Some(1 | 2) => select.distinct = true,
                Some(3) => select.calc_found_rows = true,
                Some(_) => {}
                None => break,
            }
        }
        select.items = self.comma_list(Self::select_item)?;
        if self.is_word("INTO") && matches!(self.peek_at(1), Tok::UserVar(_)) {
            self.at += 1;
            select.into = self.comma_list(Self::user_variable)?;
        }
        if self.eat("FROM") && !self.eat("DUAL") {
            select.from = self.table_refs()?;
        }
        if self.eat("WHERE") {
            select.filter = Some(self.expr()?);
        }
        if self.eat_words(&["GROUP", "BY"]) {
            select.group_by = self.comma_list(|parser| {
                let expr = parser.expr()?;
                let _ = parser.eat("ASC") || parser.eat("DESC");
                Ok(expr)
            })?;
            select.rollup = self.eat_words(&["WITH", "ROLLUP"]);
        }
        if self.eat("HAVING") {
            select.having = Some(self.expr()?);
        }
        if self.is_word("WINDOW") {
            self.skip_statement();
            select.having = Some(Expr::Unsupported("WINDOW".into()));
        }
        Ok(select)
    }

    fn select_item(&mut self) -> Result<SelectItem> {
        if self.eat_op("*") {
            return Ok(SelectItem::Wildcard);
        }
        if let Some(table) = self.table_wildcard()? {
            return Ok(SelectItem::TableWildcard(table));
        }
        let start = self.start();
        let expr = self.expr()?;
        // A lone string is named by its content.
        let text = match &expr {
            Expr::Literal(Value::Str(text)) => String::from_utf8_lossy(text).into_owned(),
            Expr::Column(name) => name.name.clone(),
            _ => self.source(start),
        };
        Ok(SelectItem::Expr { expr, alias: self.column_alias()?, text })
    }

    /// `[db.]table.*`
    fn table_wildcard(&mut self) -> Result<Option<ObjectName>> {
        if !self.is_name() {
            return Ok(None);
        }
        let dot = |ahead: usize| matches!(self.peek_at(ahead), Tok::Op("."));
        let star = |ahead: usize| matches!(self.peek_at(ahead), Tok::Op("*"));
        let parts = if dot(1) && star(2) {
            1
        } else if dot(1) && dot(3) && star(4) {
            2
        } else {
            return Ok(None);
        };
        let first = self.name()?;
        self.at += 1;
        if parts == 1 {
            self.at += 1;
            return Ok(Some(ObjectName { database: None, name: first }));
        }
        let name = self.name_after_dot()?;
        self.at += 2;
        Ok(Some(ObjectName { database: Some(first), name }))
    }

    fn column_alias(&mut self) -> Result<Option<String>> {
        if self.eat("AS") {
            return self.name_or_text_alias().map(Some);
        }
        match self.peek() {
            Tok::Text(_) => self.text().map(Some),
            _ if self.is_name() => self.name().map(Some),
            _ => Ok(None),
        }
    }

    fn name_or_text_alias(&mut self) -> Result<String> {
        if matches!(self.peek(), Tok::Text(_)) { self.text() } else { self.name() }
    }

    pub(super) fn table_refs(&mut self) -> Result<Vec<TableRef>> {
        self.comma_list(Self::table_ref)
    }

    fn table_ref(&mut self) -> Result<TableRef> {
        self.deeper(|parser| {
            let mut left = parser.table_factor()?;
            while let Some(kind) = parser.join_kind()? {
                let right = parser.table_factor()?;
                let (mut on, mut using) = (None, Vec::new());
                if parser.eat("ON") {
                    on = Some(parser.expr()?);
                } else if parser.eat("USING") {
                    using = parser.paren_list(Self::name)?;
                }
                left = TableRef::Join { kind, left: Box::new(left), right: Box::new(right), on, using };
            }
            Ok(left)
        })
    }

    fn join_kind(&mut self) -> Result<Option<JoinKind>> {
        if self.eat("JOIN") || self.eat("STRAIGHT_JOIN") {
            return Ok(Some(JoinKind::Inner));
        }
        if self.eat_any(&["INNER", "CROSS"]).is_some() {
            self.expect("JOIN")?;
            return Ok(Some(JoinKind::Inner));
        }
        let natural = self.eat("NATURAL");
        let side = self.eat_any(&["LEFT", "RIGHT"]);
        if !natural && side.is_none() {
            return Ok(None);
        }
        self.eat(if side.is_some() { "OUTER" } else { "INNER" });
        self.expect("JOIN")?;
        Ok(Some(match (natural, side) {
            (true, Some(0)) => JoinKind::NaturalLeft,
            (true, Some(_)) => JoinKind::NaturalRight,
            (true, None) => JoinKind::Natural,
            (false, Some(0)) => JoinKind::Left,
            (false, _) => JoinKind::Right,
        }))
    }

    fn table_factor(&mut self) -> Result<TableRef> {
        self.eat("LATERAL");
        if self.query_follows_paren() {
            let query = Box::new(self.parenthesized_query()?);
            self.eat("AS");
            let alias = self.name()?;
            let columns = if self.is_op("(") { self.paren_list(Self::name)? } else { Vec::new() };
            return Ok(TableRef::Derived { query, alias, columns });
        }
        if self.eat_op("(") {
            let mut refs = self.table_refs()?;
            self.expect_op(")")?;
            let mut joined = refs.remove(0);
            for right in refs {
                joined = TableRef::Join {
                    kind: JoinKind::Inner,
                    left: Box::new(joined),
                    right: Box::new(right),
                    on: None,
                    using: Vec::new(),
                };
            }
            return Ok(joined);
        }
        let name = self.object_name()?;
        if self.is_word("PARTITION") && matches!(self.peek_at(1), Tok::Op("(")) {
            return self.fail();
        }
        let alias = self.table_alias()?;
        let mut hints = Vec::new();
        while let Some(hint) = self.index_hint()? {
            hints.push(hint);
            self.eat_op(",");
        }
        Ok(TableRef::Table { name, alias, hints })
    }

    pub(super) fn table_alias(&mut self) -> Result<Option<String>> {
        if self.eat("AS") {
            return self.name_or_text_alias().map(Some);
        }
        let free = match self.peek() {
            Tok::Quoted(_) => true,
            Tok::Word(word) => !keywords::is_reserved(word),
            _ => false,
        };
        if free { self.name().map(Some) } else { Ok(None) }
    }

    fn index_hint(&mut self) -> Result<Option<IndexHint>> {
        if !self.is_word_at(1, "INDEX") && !self.is_word_at(1, "KEY") {
            return Ok(None);
        }
        let Some(which) = self.eat_any(&["USE", "FORCE", "IGNORE"]) else { return Ok(None) };
        self.at += 1;
        if self.eat("FOR") {
            match self.eat_any(&["JOIN", "ORDER", "GROUP"]) {
                Some(0) => {}
                Some(_) => self.expect("BY")?,
                None => return self.fail(),
            }
        }
        self.expect_op("(")?;
        let mut indexes = Vec::new();
        if !self.is_op(")") {
            indexes =
                self.comma_list(|parser| if parser.eat("PRIMARY") { Ok("PRIMARY".into()) } else { parser.name() })?;
        }
        self.expect_op(")")?;
        Ok(Some(IndexHint { kind: [HintKind::Use, HintKind::Force, HintKind::Ignore][which], indexes }))
    }

    /// `ORDER BY ...`, empty if absent.
    pub(super) fn order_by(&mut self) -> Result<Vec<OrderItem>> {
        if !self.eat_words(&["ORDER", "BY"]) {
            return Ok(Vec::new());
        }
        self.comma_list(|parser| {
            let expr = parser.expr()?;
            let descending = parser.eat("DESC");
            if !descending {
                parser.eat("ASC");
            }
            Ok(OrderItem { expr, descending })
        })
    }

    /// `LIMIT [offset,] count` or `LIMIT count OFFSET offset`.
    pub(super) fn limit(&mut self) -> Result<Option<Limit>> {
        if !self.eat("LIMIT") {
            return Ok(None);
        }
        let first = self.limit_number()?;
        if self.eat_op(",") {
            return Ok(Some(Limit { count: self.limit_number()?, offset: Some(first) }));
        }
        let offset = if self.eat("OFFSET") { Some(self.limit_number()?) } else { None };
        Ok(Some(Limit { count: first, offset }))
    }

    fn limit_number(&mut self) -> Result<Expr> {
        match self.peek() {
            Tok::Number(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => self.literal_expr(),
            Tok::Param => self.literal_expr(),
            _ => self.fail(),
        }
    }

    fn literal_expr(&mut self) -> Result<Expr> {
        self.boxed_expr(15).map(|expr| *expr)
    }

    fn row_lock(&mut self) -> Result<Option<RowLock>> {
        if self.eat_words(&["LOCK", "IN", "SHARE", "MODE"]) {
            return Ok(Some(RowLock { exclusive: false, wait: LockWait::Wait }));
        }
        let exclusive = if self.eat_words(&["FOR", "UPDATE"]) {
            true
        } else if self.eat_words(&["FOR", "SHARE"]) {
            false
        } else {
            return Ok(None);
        };
        if self.eat("OF") {
            self.comma_list(Self::name)?;
        }
        let wait = if self.eat("NOWAIT") {
            LockWait::NoWait
        } else if self.eat_words(&["SKIP", "LOCKED"]) {
            LockWait::SkipLocked
        } else {
            LockWait::Wait
        };
        Ok(Some(RowLock { exclusive, wait }))
    }
}

fn plain_query(select: Select) -> Query {
    Query { with: Vec::new(), body: QueryBody::Select(Box::new(select)), order_by: Vec::new(), limit: None, lock: None }
}
