//! Free ports, for programs that must be started with a certain port instead of port 0.

use std::net::TcpListener;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU16, Ordering};

/// The first port, and the number of ports. The kernel takes the ports of outgoing connections from 32768 on, so no
/// connection of another test occupies one of these ports before the program listens.
const RANGE: (u16, u16) = (16_000, 16_000);

/// A port at which no program listens. Each call in this process returns another port, until all ports have been
/// returned.
pub fn free_port() -> u16 {
    static NEXT: LazyLock<AtomicU16> = LazyLock::new(|| {
        // Test programs that run at the same time begin at different ports.
        AtomicU16::new((std::process::id() as u16).wrapping_mul(641) % RANGE.1)
    });
    loop {
        let port = RANGE.0 + NEXT.fetch_add(1, Ordering::Relaxed) % RANGE.1;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}
