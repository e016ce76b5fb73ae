//! Tests of hubs with little memory. During a flood, such hubs must refuse work and continue to run.

use std::io::Write;
use std::net::TcpStream;
use std::process::Command;
use std::time::Duration;

use crate::client::{Client, frame, id, upgrade};
use crate::hub::{DEFAULTS, Hub};
use crate::wire;

/// Starts a hub whose virtual memory is limited to `mebibytes` MiB.
fn limited(mebibytes: u64) -> Hub {
    let script = format!("ulimit -v {}; exec \"$0\"", mebibytes * 1024);
    let mut command = Command::new("sh");
    command.args(["-c", &script, env!("CARGO_BIN_EXE_peerpigeon")]).env_clear().envs(DEFAULTS.iter().copied());
    Hub::run(&mut command, [127, 0, 0, 1])
}

/// Opens a WebSocket with a small receive buffer and a short write timeout.
fn stubborn(hub: &Hub, n: u32) -> Option<TcpStream> {
    let mut stream = TcpStream::connect(hub.address).ok()?;
    stream.set_write_timeout(Some(Duration::from_millis(20))).ok()?;
    socket2::SockRef::from(&stream).set_recv_buffer_size(4096).ok()?;
    stream.write_all(upgrade(&format!("/ws?peerId={}", id(n))).as_bytes()).ok()?;
    Some(stream)
}

#[test]
fn a_hub_with_little_memory_refuses_work_during_a_flood() {
    if wire::is_over_tls() || !cfg!(target_os = "linux") {
        return;
    }
    let mut begun = vec![0x81, 0xff];
    begun.extend_from_slice(&(1u64 << 20).to_be_bytes());
    begun.extend_from_slice(&[0; 4]);
    begun.resize(1 << 20, b' ');
    for mebibytes in [150, 300, 600] {
        let mut hub = limited(mebibytes);
        let mut pair = [Client::join(&hub, 1, "pair"), Client::join(&hub, 2, "pair")];
        for peer in &mut pair {
            peer.hear_type("peer-discovered");
        }
        let mut kept = Vec::new();
        // The clients of this loop send unfinished messages of 1 MiB.
        for n in 1000..1900 {
            let Some(mut stream) = stubborn(&hub, n) else { continue };
            _ = stream.write_all(&begun);
            kept.push(stream);
        }
        // Some clients never read, and other clients send enough signals to fill the queues of these clients.
        let offer = |target: u32| {
            let data = "x".repeat(200_000);
            let target = id(target);
            frame(1, format!(r#"{{"type":"offer","targetPeerId":"{target}","data":"{data}"}}"#).as_bytes())
        };
        for n in 100..140 {
            kept.extend(stubborn(&hub, n));
        }
        for n in 200..220 {
            let Some(mut stream) = stubborn(&hub, n) else { continue };
            for target in 100..140 {
                _ = stream.write_all(&offer(target));
                _ = stream.write_all(&offer(target));
            }
            kept.push(stream);
        }
        // The clients of this loop announce large data in many networks.
        let data = "x".repeat(16_000);
        for n in 300..340 {
            let Some(mut stream) = stubborn(&hub, n) else { continue };
            for network in 0..32 {
                let text = format!(r#"{{"type":"announce","networkName":"{n}-{network}","data":{{"x":"{data}"}}}}"#);
                _ = stream.write_all(&frame(1, text.as_bytes()));
            }
            kept.push(stream);
        }
        let [a, b] = &mut pair;
        a.say(&format!(r#"{{"type":"offer","networkName":"pair","targetPeerId":"{}"}}"#, b.id));
        assert_eq!(b.hear_type("offer")["fromPeerId"], *a.id, "{mebibytes} MiB");
        hub.metric_becomes(r#"peerpigeon_closes_total{reason="try-again-later"}"#, |n| n > 0.0);
        assert!(hub.ended().is_none());
        hub.signal("-TERM");
        hub.signal("-TERM");
        drop(kept);
        assert!(hub.wait().success(), "{mebibytes} MiB: {:#?}", hub.rest_of_the_log());
    }
}
