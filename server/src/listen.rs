//! The MySQL port: accepts connections, refuses them at the limit, and sweeps the idle ones.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use tokio::{
    io::AsyncWriteExt,
    net::{TcpListener, TcpStream},
    sync::watch,
};

use crate::{
    backend::Backend,
    connection::{self, Server},
    wire::{reply::Output, result::SqlError},
};

/// Pause after an accept that failed for want of a resource (file descriptors), so as not to spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
const SWEEP_EVERY: Duration = Duration::from_secs(1);
/// A refused client has this long to take its error.
const REFUSE_TIME: Duration = Duration::from_secs(2);

/// Binds `addr` (`HOST:PORT`; port 0 picks one). The error names the address and what to do.
pub async fn bind(addr: &str, flag: &str) -> Result<TcpListener, String> {
    TcpListener::bind(addr).await.map_err(|e| match e.kind() {
        io::ErrorKind::AddrInUse => format!("{addr} is taken by another process: choose another address with {flag}"),
        _ => format!("cannot listen on {addr} ({flag}): {e}"),
    })
}

/// Accepts until `stop` changes. Connections are tasks of their own and outlive this call; see `ProcessList::drain`.
pub async fn accept<B: Backend>(listener: TcpListener, server: Arc<Server<B>>, mut stop: watch::Receiver<bool>) {
    let mut sweep = tokio::time::interval(SWEEP_EVERY);
    loop {
        tokio::select! {
            biased;
            () = stopped(&mut stop) => return,
            accepted = listener.accept() => match accepted {
                Ok((socket, peer)) => start(&server, socket, peer),
                Err(e) if is_client_fault(&e) => tracing::debug!("accept: {e}"),
                Err(e) => {
                    tracing::error!("accept: {e}");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
            _ = sweep.tick() => {
                let closed = server.processes.sweep();
                if closed > 0 {
                    tracing::info!(closed, "closed connections idle for longer than wait_timeout");
                }
            }
        }
    }
}

async fn stopped(stop: &mut watch::Receiver<bool>) {
    // A sender that is gone means stop as well.
    let _ = stop.wait_for(|stop| *stop).await;
}

fn is_client_fault(e: &io::Error) -> bool {
    matches!(e.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset)
}

fn start<B: Backend>(server: &Arc<Server<B>>, socket: TcpStream, peer: SocketAddr) {
    let registered = match server.processes.register(peer.to_string()) {
        Ok(registered) => registered,
        Err(error) => {
            server.metrics.refused.increment(1);
            tokio::spawn(refuse(socket, error));
            return;
        }
    };
    server.metrics.connections.increment(1);
    let process = registered.process().clone();
    let task = tokio::spawn(connection::serve(server.clone(), socket, peer, registered));
    process.set_task(task.abort_handle());
}

async fn refuse(mut socket: TcpStream, error: SqlError) {
    let mut out = Output::default();
    out.early_error(&error);
    let send = async {
        out.send(&mut socket).await?;
        socket.shutdown().await
    };
    let _ = tokio::time::timeout(REFUSE_TIME, send).await;
}
