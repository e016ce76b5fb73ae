//! An echo server made of a shard's sessions, for conformance tests of the WebSocket implementation.
//!
//! `echo --port 0` prints its address and runs until it is stopped. With `--tls`, it speaks TLS with its own
//! certificate.
#![allow(clippy::print_stdout, reason = "the test that starts this program reads the port from stdout")]

use std::sync::Arc;
use std::time::Duration;

use proto::{HubId, Keys, PeerId, ResumeKeys, RouterConfig};
use shard::{HubConfig, SessionLimits, ShardReading, TlsDoor};

/// The TLS configuration of a port with a self-signed certificate.
fn secure(port: u16) -> std::io::Result<TlsDoor> {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).map_err(std::io::Error::other)?;
    let file = std::env::temp_dir().join(format!("peerpigeon-echo-{}.pem", std::process::id()));
    std::fs::write(&file, made.cert.pem() + &made.signing_key.serialize_pem())?;
    let pair = tls::PairFiles { certificate: file.clone(), key: file.clone() };
    let certificates = tls::Certificates::load(&[pair]).map_err(std::io::Error::other);
    std::fs::remove_file(&file)?;
    Ok(TlsDoor { acceptor: tls::Acceptor::new(Arc::new(certificates?), None)?, ports: [port].into() })
}

fn main() -> std::io::Result<()> {
    let port =
        std::env::args().skip_while(|arg| arg != "--port").nth(1).and_then(|port| port.parse().ok()).unwrap_or(0);
    let listeners = shard::bind(([127, 0, 0, 1], port).into(), 1)?;
    let address = listeners[0].local_addr()?;
    let tls = std::env::args().any(|arg| arg == "--tls").then(|| secure(address.port())).transpose()?;
    println!("listening on {address}");
    let hub = HubId(PeerId::from_bytes([0; 20]));
    let router = RouterConfig::single(hub, Keys(1, 2), ResumeKeys::new("mesh", b"key", None));
    let single = HubConfig::single(RouterConfig { max_message_bytes: 64 * 1024 * 1024, ..router });
    let send_queue_bytes = 4 * single.limits.max_message_bytes;
    let limits = SessionLimits { send_queue_bytes, peer_timeout: Duration::from_secs(300), ..single.limits };
    let config = HubConfig { limits, tls, echo: true, ..single };
    let (publish, _readings) = tokio::sync::watch::channel(Arc::new(ShardReading::default()));
    let (ended, mut end) = tokio::sync::mpsc::channel(1);
    let _shards = shard::start(&config, vec![listeners], vec![publish], None, &ended)?;
    end.blocking_recv();
    Ok(())
}
