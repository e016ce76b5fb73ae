//! Tests of the secrets that a session receives.

use super::*;
use crate::ice::{IceServers, Turn};

#[test]
fn a_new_session_receives_the_ice_servers() {
    let mut day = Day::new(8);
    let servers = r#"{"urls":"stun:s"}"#;
    day.router.config.ice = Some(Arc::new(IceServers::new(servers, None)));
    day.opens(session(0, 0), 1);
    let arena = String::from_utf8_lossy(day.router.arena()).into_owned();
    assert!(arena.contains(r#""iceServers":["#) && arena.contains("stun:s"), "{arena}");
}

#[test]
fn secrets_are_not_shown_in_logs() {
    let day = Day::new(8);
    let lineage = Lineage { root: PeerIncarnation(1), session: PeerIncarnation(1) };
    assert_eq!(format!("{:?}", day.router.config.resume_keys.issue(&peer(1), lineage)), "Secret");
    let turn = Turn { urls: r#"["turn:t"]"#.into(), secrets: vec!["hidden".into()], ttl: Duration::from_secs(60) };
    let shown = format!("{:?}", IceServers::new(r#"{"credential":"hidden"}"#, Some(turn)));
    assert!(shown.contains("turn:t") && !shown.contains("hidden"), "{shown}");
    assert_eq!(HubId(peer(1)).to_string(), peer(1).to_string());
}
