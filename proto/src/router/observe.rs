//! Observers are sessions that discover the members of a network without being discovered.
//!
//! A session becomes an observer of a network by `announce` if its grant allows it to observe that network, but not to
//! join. The network's state on this shard lists the observer, but no roster does. So no other shard, hub or peer
//! learns of the observer, and the observer receives no signal of the network. An observer discovers every member, even
//! under bounded discovery.

use crate::bug;
use crate::codec::{self, Announce};
use crate::id::{NetworkName, SessionId};
use crate::limits::MEMBER_BYTES;
use crate::reason::ErrorCode;
use crate::time::Now;
use crate::wire::MessageKind;

use super::letter::Stay;
use super::session::Membership;
use super::{Discovery, Router};

impl Router {
    /// Processes `announce` of an observer. The announced data is checked like the data of a member, and then ignored.
    pub(super) fn observe(&mut self, id: SessionId, announce: &Announce<'_>, now: Now) {
        let network = announce.network.as_ref();
        if let Err(unfit) = codec::check_public(announce.data.unwrap_or("null")) {
            return self.refuse_data(id, unfit, MessageKind::Announce, network, now);
        }
        self.leave_before_joining(id, network, now);
        let Some(session) = self.sessions.get(id) else {
            return bug!(self.bugs, MessageSession, "announcement of {id:?}");
        };
        let known = self.rosters.find(network).filter(|ix| session.membership(*ix).is_some());
        if known.is_none() {
            let bytes = MEMBER_BYTES as u32;
            let code = if session.memberships().len() >= self.config.max_networks_per_peer {
                Some(ErrorCode::TooManyNetworks)
            } else {
                (!self.has_room_for(session, bytes)).then_some(ErrorCode::HubFull)
            };
            if let Some(code) = code {
                return self.refuse_public(id, code, MessageKind::Announce, network, now);
            }
            let stay: Stay = self.begin_stay(Discovery::All, now);
            let ix = self.rosters.find_or_create(&NetworkName::new(network));
            let (Some(network), Some(session)) = (self.rosters.network_mut(ix), self.sessions.get_mut(id)) else {
                return bug!(self.bugs, JoinState, "{id:?} observes {ix:?}");
            };
            session.join(Membership::of_observer(ix, stay, network.add_observer(id)));
            self.count_announced(id, ix, bytes);
        } else if !announce.ack
            && let Some(ix) = known
        {
            self.renew(id, ix);
        }
        let Some(ix) = self.rosters.find(network) else {
            return bug!(self.bugs, JoinState, "{id:?} observes {network}");
        };
        if announce.ack {
            self.send_or_defer_announced(id, ix, now);
        }
        self.send_roster_chunk(id, now);
    }
}
