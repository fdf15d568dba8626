//! Runs the statements that are planned: SELECT, INSERT, UPDATE, DELETE, EXPLAIN.

use std::sync::Arc;

use super::{CachedPlan, Parse, Result, Session, state::Settings, transaction::snapshot_at};
use crate::{
    catalog::Table,
    errmap::{self, error},
    exec::{
        change,
        insert::{self, Changed},
        pipeline::{ToSink, ToVec},
        read::View,
        select,
    },
    sql::{
        ast::Statement,
        context::{Context, SessionInfo},
        plan::{Plan, SelectPlan, Source, TableSource, dml, select as plan_select, select::PlanContext},
        value::Value,
    },
    wire::result::{Column, Done, ResultSink, SqlError},
};

/// How often a statement is planned anew because the schema changed under it.
const REPLANS_MAX: usize = 16;

/// A run that met a schema newer than its plan.
enum Attempt<T> {
    Done(T),
    Stale,
}

impl Session {
    /// The plan of a statement at the catalog's present epoch, from its cache if that still holds.
    async fn plan(&self, parse: &Parse, settings: &Settings) -> Result<(Arc<Plan>, u64)> {
        let catalog = &self.state.shared.catalog;
        let database = self.state.current_database();
        if let Some(cached) = &*parse.plan.lock()
            && cached.epoch == catalog.epoch()
            && cached.mode == settings.mode
            && cached.database == database
        {
            return Ok((cached.plan.clone(), cached.epoch));
        }
        let state = catalog.settled_state().await?;
        let cx = PlanContext {
            session: &*self.state,
            catalog: &state,
            database: database.as_deref(),
            mode: settings.mode,
            collation: self.state.connection_collation(),
        };
        let plan = Arc::new(make_plan(&parse.statement, &cx, settings.safe_updates)?);
        let cached = CachedPlan { epoch: state.epoch, mode: settings.mode, database, plan: plan.clone() };
        *parse.plan.lock() = Some(cached);
        Ok((plan, state.epoch))
    }

    /// Columns of a statement's result, for COM_STMT_PREPARE.
    pub(super) async fn result_columns(&self, parse: &Parse, settings: &Settings) -> Result<Vec<Column>> {
        match &parse.statement {
            Statement::Query(_) | Statement::Insert(_) | Statement::Update(_) | Statement::Delete(_) => {
                let (plan, _) = self.plan(parse, settings).await?;
                Ok(plan.columns().to_vec())
            }
            _ => Ok(Vec::new()),
        }
    }

    /// Runs a planned statement, again if the schema changed in between.
    pub(super) async fn run_planned<S: ResultSink>(
        &mut self,
        parse: &Parse,
        params: &[Value],
        settings: &Settings,
        sink: &mut S,
    ) -> Result<()> {
        if matches!(parse.statement, Statement::Query(_)) && self.tx.reads_anew() {
            self.read_barrier(settings).await?;
        }
        for _ in 0..REPLANS_MAX {
            let (plan, epoch) = self.plan(parse, settings).await?;
            let attempt = match &*plan {
                Plan::Select(plan) => self.select(plan, epoch, params, settings, sink).await?,
                _ => match self.change(&plan, epoch, params, settings).await? {
                    Attempt::Done(changed) => {
                        self.ok(changed, sink);
                        Attempt::Done(())
                    }
                    Attempt::Stale => Attempt::Stale,
                },
            };
            if matches!(attempt, Attempt::Done(())) {
                return Ok(());
            }
        }
        Err(error(1412, "Table definition has changed, please retry transaction"))
    }

    fn ok<S: ResultSink>(&self, changed: Changed, sink: &mut S) {
        self.state.set_row_count(i64::try_from(changed.affected).unwrap_or(i64::MAX));
        let done = Done {
            affected_rows: changed.affected,
            last_insert_id: changed.last_insert_id,
            warnings: self.state.warning_count(),
        };
        sink.ok(done, self.status(), &changed.info);
    }

    async fn select<S: ResultSink>(
        &mut self,
        plan: &SelectPlan,
        epoch: u64,
        params: &[Value],
        settings: &Settings,
        sink: &mut S,
    ) -> Result<Attempt<()>> {
        let state = self.state.clone();
        let cx = state.context(params, settings);
        if !plan.into.is_empty() {
            return self.select_into(plan, epoch, &cx, settings, sink).await;
        }
        let mut target = ToSink::new(sink, &plan.column_set, self.status());
        let attempt = self.select_rows(plan, epoch, &cx, settings, &mut target).await?;
        if let Attempt::Done((found, _)) = attempt {
            state.set_found_rows(found);
            state.set_row_count(-1);
            let done = Done { warnings: state.warning_count(), ..Done::default() };
            target.end(done, self.status());
            return Ok(Attempt::Done(()));
        }
        Ok(Attempt::Stale)
    }

    /// SELECT ... INTO @a, @b: one row at most (1172), as many variables as columns (1222).
    async fn select_into<S: ResultSink>(
        &mut self,
        plan: &SelectPlan,
        epoch: u64,
        cx: &Context<'_>,
        settings: &Settings,
        sink: &mut S,
    ) -> Result<Attempt<()>> {
        if plan.into.len() != plan.outputs.len() {
            return Err(error(1222, "The used SELECT statements have a different number of columns"));
        }
        let mut rows = ToVec::default();
        let Attempt::Done(_) = self.select_rows(plan, epoch, cx, settings, &mut rows).await? else {
            return Ok(Attempt::Stale);
        };
        if rows.0.len() > 1 {
            return Err(error(1172, "Result consisted of more than one row"));
        }
        let affected = rows.0.len() as u64;
        match rows.0.pop() {
            Some(row) => {
                for (name, value) in plan.into.iter().zip(row) {
                    self.state.set_user_var(name, value);
                }
            }
            None => cx.warn(error(1329, "No data - zero rows fetched, selected, or processed")),
        }
        self.ok(Changed { affected, ..Changed::default() }, sink);
        Ok(Attempt::Done(()))
    }

    /// Runs a SELECT into any target; returns rows found and rows sent.
    async fn select_rows<T: crate::exec::pipeline::RowTarget>(
        &mut self,
        plan: &SelectPlan,
        epoch: u64,
        cx: &Context<'_>,
        settings: &Settings,
        target: &mut T,
    ) -> Result<Attempt<(u64, u64)>> {
        let state = self.state.clone();
        let Source::Table(source) = &plan.source else {
            return select::run_unstored(plan, &state, cx, target).map(Attempt::Done);
        };
        if plan.lock.is_none() && !self.tx.reads_inside(settings) {
            let Some(snapshot) = snapshot_at(&state.shared.catalog, epoch)? else { return Ok(Attempt::Stale) };
            let view = View::Snapshot(&snapshot);
            return select::run_table(plan, source, &state, cx, view, target).await.map(Attempt::Done);
        }
        let outcome = self.select_inside(plan, source, epoch, cx, settings, target).await;
        self.end(outcome).await
    }

    /// Runs a SELECT inside the transaction, or a locking one.
    async fn select_inside<T: crate::exec::pipeline::RowTarget>(
        &mut self,
        plan: &SelectPlan,
        source: &TableSource,
        epoch: u64,
        cx: &Context<'_>,
        settings: &Settings,
        target: &mut T,
    ) -> Result<Attempt<(u64, u64)>> {
        let state = self.state.clone();
        let catalog = &state.shared.catalog;
        let active = self.tx.for_statement(catalog.db(), settings, false)?;
        active.use_table(catalog, &source.table).await?;
        if catalog.epoch() != epoch {
            active.forget_table(&source.table);
            return Ok(Attempt::Stale);
        }
        let run = async {
            match plan.lock {
                Some(lock) => select::run_locking(plan, source, &state, cx, &mut active.txn, lock, target).await,
                None => {
                    let view = active.consistent(catalog, source.table.changed_epoch)?;
                    select::run_table(plan, source, &state, cx, view, target).await
                }
            }
        };
        unless_killed(&state, run).await.map(Attempt::Done)
    }

    /// Runs INSERT, UPDATE or DELETE.
    async fn change(
        &mut self,
        plan: &Plan,
        epoch: u64,
        params: &[Value],
        settings: &Settings,
    ) -> Result<Attempt<Changed>> {
        let outcome = self.change_inside(plan, epoch, params, settings).await;
        let explicit = self.tx.is_open();
        let ended = self.end(outcome).await;
        match ended {
            // A schema change won the race to the commit: nothing was written, so the statement may run again.
            Err(e) if !explicit && e.code == 1213 && self.state.shared.catalog.epoch() != epoch => Ok(Attempt::Stale),
            ended => ended,
        }
    }

    async fn change_inside(
        &mut self,
        plan: &Plan,
        epoch: u64,
        params: &[Value],
        settings: &Settings,
    ) -> Result<Attempt<Changed>> {
        let state = self.state.clone();
        let catalog = &state.shared.catalog;
        let (table, ignore): (&Table, bool) = match plan {
            Plan::Insert(p) => (&p.table, p.ignore),
            Plan::Update(p) => (&p.source.table, p.ignore),
            Plan::Delete(p) => (&p.source.table, false),
            Plan::Select(_) => return Err(error(1105, "a SELECT is not a change")),
        };
        let mut cx = state.context(params, settings);
        cx.strict_data = settings.mode.strict && !ignore;
        let active = self.tx.for_statement(catalog.db(), settings, true)?;
        active.use_table(catalog, table).await?;
        if catalog.epoch() != epoch {
            active.forget_table(table);
            return Ok(Attempt::Stale);
        }
        let txn = &mut active.txn;
        let run = async {
            match plan {
                Plan::Insert(p) => insert::run(p, &state, &cx, txn).await,
                Plan::Update(p) => change::update(p, &state, &cx, txn).await,
                Plan::Delete(p) => change::delete(p, &state, &cx, txn).await,
                Plan::Select(_) => Err(error(1105, "a SELECT is not a change")),
            }
        };
        unless_killed(&state, run).await.map(Attempt::Done)
    }

    /// Ends the statement in the transaction: commit, settle or undo.
    async fn end<T>(&mut self, outcome: Result<Attempt<T>>) -> Result<Attempt<T>> {
        match outcome {
            Ok(Attempt::Stale) => {
                self.tx.abandon_statement();
                Ok(Attempt::Stale)
            }
            Ok(done) => self.tx.end_statement(Ok(())).await.map(|()| done),
            Err(e) => match self.tx.end_statement(Err(e)).await {
                Err(e) => Err(e),
                Ok(()) => Err(error(1105, "an error was lost")),
            },
        }
    }

    /// The plan of a statement for EXPLAIN.
    pub(super) async fn explain(&self, statement: &Statement, settings: &Settings) -> Result<Vec<Value>> {
        let state = self.state.shared.catalog.settled_state().await?;
        let database = self.state.current_database();
        let cx = PlanContext {
            session: &*self.state,
            catalog: &state,
            database: database.as_deref(),
            mode: settings.mode,
            collation: self.state.connection_collation(),
        };
        let plan = make_plan(statement, &cx, false)?;
        Ok(crate::sql::plan::explain::row(&plan))
    }
}

fn make_plan(statement: &Statement, cx: &PlanContext<'_>, safe: bool) -> Result<Plan> {
    Ok(match statement {
        Statement::Query(query) => Plan::Select(Box::new(plan_select::plan(query, cx)?)),
        Statement::Insert(insert) => Plan::Insert(Box::new(dml::insert(insert, cx)?)),
        Statement::Update(update) => Plan::Update(Box::new(dml::update(update, safe, cx)?)),
        Statement::Delete(delete) => Plan::Delete(Box::new(dml::delete(delete, safe, cx)?)),
        _ => return Err(errmap::unsupported("EXPLAIN of this statement")),
    })
}

/// Races a statement with KILL.
async fn unless_killed<T>(
    state: &super::State,
    run: impl Future<Output = std::result::Result<T, SqlError>>,
) -> std::result::Result<T, SqlError> {
    let Some(process) = &state.login.process else { return run.await };
    tokio::select! {
        biased;
        done = run => done,
        killed = process.interrupted() => Err(killed),
    }
}
