//! Tests of operators' orders.

use proto::{KickedFrom, NetworkName};

use super::*;

/// An order that the hub's main thread no longer waits for may still be in progress when the next order arrives.
#[tokio::test]
async fn a_kick_is_answered_while_a_network_is_being_closed() {
    let mut core = core(ROOMY);
    let (_, _read, _client) = adopt(&mut core, 1).await;
    let (close_done, mut closed) = oneshot::channel();
    core.acting.push_back((Order::CloseNetwork { network: NetworkName::new("n"), out_for: None }, close_done));
    let (kick_done, mut kicked) = oneshot::channel();
    core.ordered(Order::Kick { peer: peer(1), network: None, out_for: None }, kick_done);
    assert_eq!(kicked.try_recv(), Ok(Acted::Kicked { from: KickedFrom::Hub, excluded: true }));
    assert!(closed.try_recv().is_err(), "the network is still being closed");
    core.acted(Acted::Closed { members: 3, excluded: true });
    assert_eq!(closed.try_recv(), Ok(Acted::Closed { members: 3, excluded: true }));
    assert!(core.acting.is_empty());
}
