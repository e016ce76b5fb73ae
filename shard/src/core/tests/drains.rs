//! Drains: the slots in which sessions are closed.

use super::*;
use crate::drain::Drain;

/// Begins a drain that gives the only session the first slot.
fn drain(core: &mut Core) {
    core.drain(Drain { spread: Duration::from_secs(10), hubs: [].into(), is_alone: true, stops: false });
}

/// Processes the entries of the timer that are due within this number of seconds. Returns the phase of the session.
fn phase_after(core: &mut Core, id: SessionId, seconds: u64) -> SessionPhase {
    let now = core.now();
    let later = Now { at: now.at + Duration::from_secs(seconds), ..now };
    core.wheel.expire(later.at, &mut core.due);
    core.expire(later);
    core.session_mut(id).expect("it lingers").phase()
}

#[tokio::test]
async fn the_slot_of_an_ended_drain_closes_no_session() {
    let mut core = core(ROOMY);
    let (id, _read, _client) = adopt(&mut core, 1).await;
    drain(&mut core);
    assert!(core.is_draining());
    core.undrain();
    assert_eq!(phase_after(&mut core, id, 1), SessionPhase::Open, "the drain has ended");
    drain(&mut core);
    assert_eq!(phase_after(&mut core, id, 3), SessionPhase::Retiring, "the second drain has its own slots");
}
