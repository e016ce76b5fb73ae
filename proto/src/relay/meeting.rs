//! Forwards meetings between the shards of two hubs. The sender repeats a meeting until it is answered, so the relay
//! stores no state of meetings.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::envelope::Routed;
use crate::id::{HubId, PeerId, ShardId};
use crate::route::Hop;
use crate::router::{Meeting, MeetingEnd, ToShard};
use crate::time::Now;

use super::Relay;

impl Relay {
    pub(super) fn meeting_posted(&mut self, hub: HubId, meeting: Arc<Meeting>, now: Now) {
        // The other hub may have been lost.
        let Some(incarnation) = self.hubs.get(&hub).filter(|r| r.is_live()).map(|r| r.incarnation()) else { return };
        let full = |relay: &Self, via: Hop| relay.is_saturated(via);
        if self.route(&hub, now).is_some_and(|via| !full(self, via)) {
            self.send_routed((hub, incarnation), Routed::Meeting(meeting), now);
        }
    }

    /// Processes a meeting from another hub. A hub may send meetings only for its own peers.
    pub(super) fn meeting_received(&mut self, from: HubId, meeting: &Arc<Meeting>) {
        let held = |relay: &Self, peer: &PeerId| relay.directory.holder(peer).is_some_and(|claim| claim.hub == from);
        let home = |relay: &Self, peer: &PeerId| ShardId::home(peer, relay.config.shards, relay.config.keys);
        let (homes, meeting) = match meeting.to {
            MeetingEnd::Others if held(self, &meeting.about) => {
                let homes: BTreeSet<ShardId> = meeting.others.iter().map(|(other, _)| home(self, other)).collect();
                (homes, Arc::clone(meeting))
            }
            // The peer may have moved, or the hub may have sent a meeting for a peer of another hub.
            MeetingEnd::Others => return,
            MeetingEnd::About => {
                let mut meeting = Meeting::clone(meeting);
                meeting.others.retain(|(other, _)| held(self, other));
                (BTreeSet::from([home(self, &meeting.about)]), Arc::new(meeting))
            }
        };
        for shard in homes {
            self.post(shard, ToShard::Meeting(Arc::clone(&meeting)));
        }
    }
}
