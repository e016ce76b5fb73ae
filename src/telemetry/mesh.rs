//! Metrics of the mesh.

use std::time::Duration;

use mesh::{LinkEnd, MeshReading};
use proto::PresenceRefusal;
use proto::envelope::EnvelopeKind;

use super::{catalog, count, gauge, label};

/// Records the statistics of the mesh. Without a mesh, all statistics are 0.
pub(super) fn publish(reading: &MeshReading) {
    let MeshReading { relay, links, io, .. } = reading;
    gauge(&catalog::MESH_HUBS, vec![], relay.hubs as f64);
    gauge(&catalog::MESH_REMOTE_PEERS, vec![], relay.remote_peers as f64);
    gauge(&catalog::MESH_PRESENCE_BYTES, vec![], relay.presence_bytes as f64);
    gauge(&catalog::MESH_PRESENCE_LAG, vec![], seconds(relay.presence_lag_ms));
    gauge(&catalog::MESH_GHOST_AGE, vec![], seconds(relay.ghost_age_ms));
    gauge(&catalog::MESH_UNSETTLED, vec![], relay.unreconciled_hubs as f64);
    gauge(&catalog::MESH_SIGNALS_IN_FLIGHT, vec![], relay.in_flight as f64);
    gauge(&catalog::MESH_SIGNALS_HELD, vec![], relay.held as f64);
    for kind in EnvelopeKind::ALL {
        let envelope = |direction| vec![label("direction", direction), label("kind", kind.label())];
        count(&catalog::MESH_ENVELOPES, envelope("in"), relay.received[kind as usize]);
        count(&catalog::MESH_ENVELOPES, envelope("out"), relay.sent[kind as usize]);
    }
    for (metric, value) in [
        (&catalog::MESH_DUPLICATES, relay.duplicates),
        (&catalog::MESH_RELAYED, relay.relayed),
        (&catalog::MESH_FORWARDED, relay.forwarded),
        (&catalog::MESH_OUT_OF_ORDER, relay.out_of_order),
        (&catalog::MESH_LATE_OUTCOMES, relay.late_outcomes),
        (&catalog::MESH_SNAPSHOTS_REFUSED, relay.snapshots_refused),
        (&catalog::MESH_NUMBERS_REFUSED, relay.numbers_refused),
        (&catalog::MESH_SIGNALS_NOT_HELD, relay.signals_not_held),
        (&catalog::MESH_IDS_GIVEN_UP, relay.ids_given_up),
        (&catalog::MESH_HUBS_LOST, relay.hubs_lost),
        (&catalog::MESH_GHOSTS_EVICTED, relay.ghosts_evicted),
        (&catalog::LINK_LEGACY_REFUSED, relay.legacy_refused),
        (&catalog::LINK_LEGACY_INTRODUCED, relay.legacy_introduced),
        (&catalog::MESH_LETTERS, io.post.letters),
        (&catalog::MESH_LETTER_BATCHES, io.post.batches),
        (&catalog::MESH_STALLS, io.post.stalls),
        (&catalog::LINK_WRITES, io.writes),
        (&catalog::LINKS_OPENED, io.opened),
        (&catalog::LINKS_REFUSED, io.refused),
        (&catalog::LINK_SATURATIONS, io.saturations),
        (&catalog::LINK_SILENCES, relay.link_silences),
        (&catalog::MESH_ROUTES_AVOIDED, relay.routes_avoided),
        (&catalog::LINK_DIALS, io.dial_attempts),
        (&catalog::LINK_DIAL_FAILURES, io.dial_failures),
    ] {
        count(metric, vec![], value);
    }
    for limit in PresenceRefusal::ALL {
        let refused = relay.presence_refused[limit as usize];
        count(&catalog::MESH_PRESENCE_REFUSED, vec![label("limit", limit.label())], refused);
    }
    for (i, direction) in ["out", "in"].into_iter().enumerate() {
        count(&catalog::MESH_SNAPSHOTS, vec![label("direction", direction)], relay.snapshots[i]);
    }
    for (i, answer) in ["free", "in-use"].into_iter().enumerate() {
        count(&catalog::MESH_TAKEOVERS, vec![label("answer", answer)], relay.takeovers[i]);
    }

    for (direction, dialed) in [("in", false), ("out", true)] {
        let there = links.iter().filter(|link| link.ready && link.dialed == dialed).count();
        gauge(&catalog::LINKS, vec![label("direction", direction)], there as f64);
    }
    gauge(&catalog::LINKS_SATURATED, vec![], links.iter().filter(|link| link.saturated).count() as f64);
    gauge(&catalog::LINKS_SILENT, vec![], relay.links_silent as f64);
    gauge(&catalog::LINK_QUEUED_BYTES, vec![], io.queued_bytes as f64);
    gauge(&catalog::LINK_QUEUE_PEAK_BYTES, vec![], io.queue_peak_bytes as f64);
    gauge(&catalog::MESH_OUTBOX_PEAK, vec![], io.post.peak as f64);
    let slowest = links.iter().filter_map(|link| link.rtt).max().unwrap_or_default();
    gauge(&catalog::LINK_RTT, vec![], slowest.as_secs_f64());
    for (direction, bytes, frames) in [("in", io.bytes_in, io.frames_in), ("out", io.bytes_out, io.frames_out)] {
        count(&catalog::LINK_BYTES, vec![label("direction", direction)], bytes);
        count(&catalog::LINK_FRAMES, vec![label("direction", direction)], frames);
    }
    for end in LinkEnd::ALL {
        count(&catalog::LINK_ENDS, vec![label("reason", end.label())], io.ended[end as usize]);
    }

    let bridge = reading.bridge.clone().unwrap_or_default();
    gauge(&catalog::REDIS_CONNECTED, vec![], f64::from(u8::from(bridge.connected)));
    for (direction, frames, bytes) in
        [("in", bridge.received, bridge.bytes_in), ("out", bridge.published, bridge.bytes_out)]
    {
        count(&catalog::REDIS_FRAMES, vec![label("direction", direction)], frames);
        count(&catalog::REDIS_BYTES, vec![label("direction", direction)], bytes);
    }
    count(&catalog::REDIS_REFUSED, vec![], bridge.refused + io.bridge_malformed);
    for (reason, frames) in ["unanswered", "repeated"].into_iter().zip(bridge.stale) {
        count(&catalog::REDIS_STALE, vec![label("reason", reason)], frames);
    }
    gauge(&catalog::REDIS_ONE_WAY, vec![], bridge.one_way.len() as f64);
    count(&catalog::REDIS_LOST, vec![], bridge.lost);
    count(&catalog::REDIS_ERRORS, vec![], bridge.errors);
    count(&catalog::REDIS_RECONNECTS, vec![], bridge.reconnects);
}

fn seconds(ms: u64) -> f64 {
    Duration::from_millis(ms).as_secs_f64()
}
