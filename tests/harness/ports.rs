//! Free TCP ports on loopback for servers that can't bind port 0 themselves.

use std::{net::TcpListener, sync::Mutex};

/// Where the last call stopped: tests of one process may run at once, and a port is bound only some time after it was picked.
static LAST: Mutex<Option<u32>> = Mutex::new(None);

/// Picks `n` ports that are free now, all different, and below the kernel's ephemeral range, so that an outgoing
/// connection can't take one between this call and the server's bind.
pub fn free(n: usize) -> Vec<u16> {
    let mut held = Vec::new();
    let mut last = LAST.lock().expect("nobody panics here");
    while held.len() < n {
        let before = last.unwrap_or_else(|| std::process::id().wrapping_mul(2_654_435_761));
        let seed = before.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        *last = Some(seed);
        let port = 12_000 + (seed >> 8) as u16 % 10_000; // SeaweedFS also binds port + 10000 for gRPC: 22000..32000
        if let (Ok(a), Ok(b)) =
            (TcpListener::bind(("127.0.0.1", port)), TcpListener::bind(("127.0.0.1", port + 10_000)))
        {
            held.push((a, b));
        }
    }
    held.iter().map(|(a, _)| a.local_addr().expect("bound").port()).collect()
}
