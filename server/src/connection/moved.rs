//! Sessions that move: the decision to do so, what travels, and the connection of one that came.

use std::{sync::Arc, time::Duration, time::Instant};

use rustc_hash::FxHashMap;

use super::{Connection, End, Link, PreparedHere, ReadError, Server, stream::Stream};
use crate::{
    backend::{Backend, Conversation},
    forward::{handover::Handover, host::Hosted, relay::Relay},
    processlist::{Process, Registered, Via, shown},
    session::Login,
    wire::{command::Command, result::SqlError},
};

/// What decides where a connection's session runs.
pub(super) struct Place<'a, B: Backend> {
    pub(super) server: &'a Server<B>,
    pub(super) process: &'a Process,
    pub(super) login: &'a Login,
    pub(super) capabilities: u32,
    pub(super) session: &'a mut B::Session,
    pub(super) relay: &'a mut Option<Relay>,
    pub(super) prepared: &'a FxHashMap<u32, PreparedHere>,
}

impl<B: Backend> Place<'_, B> {
    /// Moves the session to the leader if the command needs it, and back if it begins anew. The error leaves it where it is.
    pub(super) async fn settle(self, command: &Command<'_>) -> Result<(), SqlError> {
        if self.relay.is_some() {
            self.note(command);
            return Ok(());
        }
        let Some(forward) = &self.server.forward else { return Ok(()) };
        if !self.session.needs_leader(command) {
            return Ok(());
        }
        if let Command::Query(sql) = command {
            self.process.set_info(shown(sql));
        }
        let handover = self.handover();
        let moved = tokio::select! {
            biased;
            moved = forward.session(&handover) => moved?,
            killed = self.process.interrupted() => return Err(killed),
        };
        if let Some(relay) = moved {
            self.server.metrics.forwarded.increment(1);
            self.process.set_via(Via::To(relay.leader()));
            // The leader knows when it was idle for too long.
            self.process.set_wait_timeout(Duration::MAX);
            *self.relay = Some(relay);
        }
        Ok(())
    }

    /// A command of a session that moved: what this side must know of it.
    fn note(self, command: &Command<'_>) {
        let info = match command {
            Command::Query(sql) | Command::Prepare(sql) => shown(sql),
            Command::Execute { id, .. } => self.prepared.get(id).map_or_else(|| [].into(), |here| here.shown.clone()),
            _ => [].into(),
        };
        self.process.set_info(info);
        match command {
            // It begins anew here, in the database that was chosen there.
            Command::ResetConnection => {
                let database = self.relay.take().and_then(|relay| relay.answered().database.clone());
                self.session.came_back_in(database.as_deref());
                self.process.set_via(Via::Here);
            }
            // It outlives that.
            Command::SetOption(option) => self.session.set_multi_statements(*option == 0),
            _ => {}
        }
    }

    fn handover(&self) -> Handover {
        let bound = self.prepared.iter().map(|(id, here)| (*id, here.bound.parts()));
        Handover {
            capabilities: self.capabilities,
            collation: self.login.collation,
            found_rows: self.login.found_rows,
            user: self.login.user.clone(),
            host: self.login.host.clone(),
            client: self.process.host(),
            tls: self.login.tls.clone(),
            session: self.session.carry(),
            bound: bound.filter(|(_, parts)| !parts.is_empty()).collect(),
        }
    }
}

/// Serves a session that came from another node, whose client is logged in there, to the end.
pub(crate) async fn serve_hosted<B: Backend>(
    server: Arc<Server<B>>,
    hosted: Hosted,
    handover: Handover,
    login: Login,
    session: B::Session,
    registered: Registered,
) {
    let process = registered.process().clone();
    let id = process.id();
    let mut link = Link::new(Stream::Hosted(Box::new(hosted)), std::net::Ipv4Addr::UNSPECIFIED.into());
    link.capabilities = handover.capabilities;
    link.out.set_capabilities(handover.capabilities);
    let mut prepared: FxHashMap<u32, PreparedHere> = FxHashMap::default();
    for (statement, source) in &handover.session.prepared {
        prepared.insert(*statement, PreparedHere { shown: shown(&source.text), ..PreparedHere::default() });
    }
    for (statement, parts) in handover.bound {
        prepared.entry(statement).or_default().bound = parts.into();
    }
    let (relay, params, answered_at) = (None, Vec::new(), Instant::now());
    let mut connection = Connection { server, process, link, login, session, relay, prepared, params, answered_at };
    let ended = match connection.commands().await {
        // The follower does not say more than that.
        Ok(()) | Err(End::Read(ReadError::Eof)) => connection.link.close().await,
        Err(end) => connection.link.farewell(end).await,
    };
    match ended {
        Ok(()) => tracing::debug!(id, "the session of another node ended"),
        Err(end) => tracing::info!(id, "the session of another node ended: {end}"),
    }
}
