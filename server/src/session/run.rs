//! Runs one statement of any kind and answers the client.

use super::{Kept, Parse, Result, Session, Source, state::Settings};
use crate::{
    errmap::{self, error},
    exec::{ddl, show},
    sql::{
        ast::{MaintainVerb, PrepareSource, ShowKind, Statement},
        bind::{Binder, NoColumns},
        context::SessionInfo,
        convert,
        parse::parse_one,
        plan::explain,
        types::DataType,
        value::Value,
    },
    wire::result::{Done, ResultSink},
};

impl Session {
    /// Runs a statement; an error is kept for SHOW WARNINGS.
    pub(super) async fn run<S: ResultSink>(
        &mut self,
        parse: &std::sync::Arc<Parse>,
        params: &[Value],
        sink: &mut S,
    ) -> Result<()> {
        let settings = self.state.begin_statement(is_diagnostic(&parse.statement));
        let outcome = self.dispatch(parse, params, &settings, sink).await.map_err(|e| self.name_leader(e));
        if outcome.is_err() {
            self.state.set_row_count(-1);
        }
        self.noted(outcome)
    }

    async fn dispatch<S: ResultSink>(
        &mut self,
        parse: &std::sync::Arc<Parse>,
        params: &[Value],
        settings: &Settings,
        sink: &mut S,
    ) -> Result<()> {
        match &parse.statement {
            Statement::Query(_) | Statement::Insert(_) | Statement::Update(_) | Statement::Delete(_) => {
                self.run_planned(parse, params, settings, sink).await
            }
            Statement::Transaction(t) => {
                self.transaction(t, settings).await?;
                self.done(sink);
                Ok(())
            }
            Statement::Execute { name, using } => {
                let found = self.named.get(&name.to_lowercase()).map(|kept| kept.parse.clone());
                let inner = found.ok_or_else(|| {
                    error(1243, format!("Unknown prepared statement handler ({name}) given to EXECUTE"))
                })?;
                if inner.params as usize != using.len() {
                    return Err(error(1210, "Incorrect arguments to EXECUTE"));
                }
                let values: Vec<Value> = using.iter().map(|name| self.state.user_var(name)).collect();
                Box::pin(self.dispatch(&inner, &values, settings, sink)).await
            }
            other => self.command(other, params, settings, sink).await,
        }
    }

    /// Statements that are not planned.
    async fn command<S: ResultSink>(
        &mut self,
        statement: &Statement,
        params: &[Value],
        settings: &Settings,
        sink: &mut S,
    ) -> Result<()> {
        match statement {
            Statement::Set(items) => {
                self.set(items, params, settings)?;
                self.after_set(settings).await?;
            }
            Statement::Use(name) => self.init_db(name).await?,
            Statement::Show(what) => {
                self.read_barrier(settings).await?;
                let table = show::show(what, &self.state).await?;
                return self.answer(table, sink);
            }
            Statement::Describe { table, column } => {
                self.read_barrier(settings).await?;
                let table = show::describe(table, column.as_deref(), &self.state).await?;
                return self.answer(table, sink);
            }
            Statement::Explain { analyze: true, .. } => return Err(errmap::unsupported("EXPLAIN ANALYZE")),
            Statement::Explain { format: Some(format), .. } if !format.eq_ignore_ascii_case("traditional") => {
                return Err(errmap::unsupported(format!("EXPLAIN FORMAT={format}")));
            }
            Statement::Explain { statement, .. } => {
                let row = self.explain(statement, settings).await?;
                let table = show::Table::new(&explain::COLUMNS, vec![row]);
                return self.answer(table, sink);
            }
            Statement::Ddl(change) => {
                self.tx.commit().await?;
                ddl::run(change, &self.state).await?;
            }
            Statement::Truncate(name) => {
                self.tx.commit().await?;
                ddl::truncate(name, &self.state).await?;
            }
            Statement::Kill { query, id } => {
                let id = self.constant(id, params, settings)?;
                let cx = self.state.context(params, settings);
                let id = convert::to_int(&id, &cx).and_then(|n| u64::try_from(n).ok()).unwrap_or(0);
                let what = if *query { crate::processlist::Kill::Query } else { crate::processlist::Kill::Connection };
                self.state.shared.processes.kill(self.state.login.connection_id, id, what)?;
            }
            Statement::AlterUser(changes) => {
                self.tx.commit().await?;
                self.alter_users(changes).await?;
            }
            Statement::Prepare { name, source } => {
                let text = match source {
                    PrepareSource::Text(text) => text.clone(),
                    PrepareSource::Variable(name) => convert::to_string(&self.state.user_var(name)).unwrap_or_default(),
                };
                let key = name.to_lowercase();
                self.named.remove(&key);
                let parsed = parse_one(text.as_bytes(), settings.mode)?;
                if matches!(
                    parsed.statement,
                    Statement::Prepare { .. } | Statement::Execute { .. } | Statement::Deallocate(_)
                ) {
                    return Err(error(1295, "This command is not supported in the prepared statement protocol yet"));
                }
                let source = Source { text: text.as_bytes().into(), mode: self.state.mode_text() };
                self.named.insert(key, Kept { parse: Parse::new(parsed), source });
            }
            Statement::Deallocate(name) => {
                let unknown =
                    || error(1243, format!("Unknown prepared statement handler ({name}) given to DEALLOCATE PREPARE"));
                self.named.remove(&name.to_lowercase()).ok_or_else(unknown)?;
            }
            Statement::Do(list) => {
                for e in list {
                    self.constant(e, params, settings)?;
                }
            }
            Statement::Flush(words) => self.flush(words)?,
            Statement::Maintain { verb, tables } => {
                if *verb == MaintainVerb::Checksum {
                    return Err(errmap::unsupported("CHECKSUM TABLE"));
                }
                let table = show::maintain(*verb, tables, &self.state).await?;
                return self.answer(table, sink);
            }
            Statement::Empty => return Err(error(1065, "Query was empty")),
            Statement::Unsupported(what) => return Err(errmap::unsupported(what)),
            _ => return Err(errmap::unsupported("this statement")),
        }
        self.done(sink);
        Ok(())
    }

    /// Evaluates an expression without columns.
    pub(super) fn constant(&self, e: &crate::sql::ast::Expr, params: &[Value], settings: &Settings) -> Result<Value> {
        let cx = self.state.context(params, settings);
        let mut binder = Binder::new(&NoColumns, &*self.state).with_collation(self.state.connection_collation());
        Ok(binder.bind(e)?.eval(&[], &cx)?.into_owned())
    }

    /// Answers OK without rows.
    pub(super) fn done<S: ResultSink>(&self, sink: &mut S) {
        self.state.set_row_count(0);
        sink.ok(Done { warnings: self.state.warning_count(), ..Done::default() }, self.status(), "");
    }

    /// Answers with a small table.
    fn answer<S: ResultSink>(&self, table: show::Table, sink: &mut S) -> Result<()> {
        self.state.set_row_count(-1);
        sink.columns(&table.columns, self.status());
        for row in &table.rows {
            sink.row(row);
        }
        sink.end(Done { warnings: self.state.warning_count(), ..Done::default() }, self.status());
        Ok(())
    }
}

/// Statements that look at the warnings of the one before must not clear them.
fn is_diagnostic(statement: &Statement) -> bool {
    matches!(
        statement,
        Statement::Show(show)
            if matches!(show.what, ShowKind::Warnings { .. } | ShowKind::Errors { .. } | ShowKind::CountWarnings { .. })
    )
}

/// The converter of DEFAULT clauses: a constant as a column value, strictly.
pub fn default_evaluator<'a>(
    state: &'a super::State,
    settings: &'a Settings,
) -> impl Fn(&crate::sql::ast::Expr, &DataType) -> Result<Value> + 'a {
    move |e, ty| {
        let mut cx = state.context(&[], settings);
        cx.strict_data = true;
        let bound = Binder::new(&NoColumns, state).bind(e)?;
        let value = bound.eval(&[], &cx)?.into_owned();
        crate::exec::store::store(&value, &bound.ty, ty, crate::exec::store::Place { column: "", row: 1 }, &cx)
    }
}
