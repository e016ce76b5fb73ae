//! Decides whether a link is kept after the other hub has identified itself. Both ends apply the same rules, so they
//! keep the same link.

use proto::envelope::{Hello, VERSION};
use proto::{Discovery, HubId, HubIncarnation, LinkId};

use crate::stats::LinkEnd;

/// This hub's identity and settings.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Own<'a> {
    pub(crate) hub: HubId,
    pub(crate) incarnation: HubIncarnation,
    pub(crate) process: u64,
    pub(crate) namespace: &'a str,
    pub(crate) discovery: Discovery,
}

/// An existing link to the same hub.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Present {
    pub(crate) link: LinkId,
    /// Whether this hub dialed the existing link.
    pub(crate) dialed: bool,
    /// The incarnation in the hello that the other hub sent on this link.
    pub(crate) incarnation: HubIncarnation,
    /// The process number in the other hub's hello; 0 for hubs before version 2.1.
    pub(crate) process: u64,
    /// Whether data arrived on this link recently.
    pub(crate) is_heard: bool,
}

/// The decision about a new link.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Choice {
    /// Use the new link.
    Take,
    /// Use the new link, and close the existing link with this id.
    Replace(LinkId),
    /// Close the new link.
    Refuse(LinkEnd),
}

/// Whether this hub may link with the other side. `expected` is the id in the other side's request, or `None` if this
/// hub has dialed.
pub(crate) fn greet(own: Own<'_>, hello: &Hello, expected: Option<HubId>) -> Result<(), LinkEnd> {
    if hello.version != VERSION {
        Err(LinkEnd::WrongVersion)
    } else if hello.namespace != own.namespace {
        Err(LinkEnd::WrongNamespace)
    } else if hello.discovery != own.discovery {
        Err(LinkEnd::WrongDiscovery)
    } else if hello.hub == own.hub && is_same_process((own.process, own.incarnation), hello) {
        Err(LinkEnd::SelfLink)
    } else if hello.hub == own.hub {
        Err(LinkEnd::SameId)
    } else if expected.is_some_and(|expected| expected != hello.hub) {
        Err(LinkEnd::WrongHub)
    } else {
        Ok(())
    }
}

fn is_same_process((process, incarnation): (u64, HubIncarnation), hello: &Hello) -> bool {
    if process != 0 && hello.process != 0 { process == hello.process } else { incarnation == hello.incarnation }
}

/// Decides whether a new link to a hub is used, and whether an existing link to the same hub is kept. If each hub has
/// dialed one of the two links, the link that the hub with the smaller id has dialed is kept. The dialer (`dialed`)
/// calls this function after it has received the acceptor's hello. The acceptor calls this function after the dialer
/// has confirmed the link.
pub(crate) fn decide(own: HubId, hello: &Hello, dialed: bool, present: Option<Present>) -> Choice {
    let Some(present) = present else { return Choice::Take };
    // The existing link leads to another process with the same id. Either the older process is dead and its socket does
    // not show that yet, or both processes are alive. The relay decides between them.
    if present.is_heard && !is_same_process((present.process, present.incarnation), hello) {
        return Choice::Take;
    }
    if present.incarnation < hello.incarnation {
        return Choice::Replace(present.link);
    }
    match (present.dialed, dialed) {
        // The existing link works, as far as this hub knows.
        (true, true) => Choice::Refuse(LinkEnd::Double),
        // The dialer no longer has the existing link, otherwise it would not have confirmed the new link.
        (false, false) => Choice::Replace(present.link),
        (true, false) | (false, true) => {
            let by_smaller = dialed == (own < hello.hub);
            if by_smaller { Choice::Replace(present.link) } else { Choice::Refuse(LinkEnd::Double) }
        }
    }
}

#[cfg(test)]
mod tests {
    use proto::PeerId;

    use super::*;

    const SMALL: HubId = HubId(PeerId::from_bytes([1; 20]));
    const LARGE: HubId = HubId(PeerId::from_bytes([2; 20]));
    const LIFE: HubIncarnation = HubIncarnation(5);

    fn hello(hub: HubId) -> Hello {
        Hello {
            version: VERSION,
            hub,
            incarnation: LIFE,
            namespace: "mesh".into(),
            discovery: Discovery::All,
            process: 7,
        }
    }

    fn greeted(change: impl FnOnce(&mut Hello)) -> Result<(), LinkEnd> {
        let mut hello = hello(LARGE);
        change(&mut hello);
        let own = Own { hub: SMALL, incarnation: LIFE, process: 7, namespace: "mesh", discovery: Discovery::All };
        greet(own, &hello, Some(LARGE))
    }

    #[test]
    fn a_hub_of_the_same_mesh_is_accepted() {
        assert_eq!(greeted(|_| ()), Ok(()));
    }

    #[test]
    fn a_refused_link_receives_the_reason() {
        assert_eq!(greeted(|hello| hello.version = 2), Err(LinkEnd::WrongVersion));
        assert_eq!(greeted(|hello| hello.namespace = "other".into()), Err(LinkEnd::WrongNamespace));
        assert_eq!(greeted(|hello| hello.discovery = Discovery::Closest(8)), Err(LinkEnd::WrongDiscovery));
        assert_eq!(greeted(|hello| hello.hub = SMALL), Err(LinkEnd::SelfLink));
        assert_eq!(greeted(|hello| hello.hub = HubId(PeerId::from_bytes([3; 20]))), Err(LinkEnd::WrongHub));
        let same_id = |hello: &mut Hello| (hello.hub, hello.process) = (SMALL, 8);
        assert_eq!(greeted(same_id), Err(LinkEnd::SameId), "the two processes started in the same millisecond");
        // Hubs before 2.1 have no process number.
        let earlier = |life| move |hello: &mut Hello| (hello.hub, hello.incarnation, hello.process) = (SMALL, life, 0);
        assert_eq!(greeted(earlier(LIFE)), Err(LinkEnd::SelfLink));
        assert_eq!(greeted(earlier(HubIncarnation(6))), Err(LinkEnd::SameId));
    }

    fn decided(own: HubId, other: HubId, dialed: bool, present: Option<bool>) -> Choice {
        let present =
            present.map(|dialed| Present { link: LinkId(1), dialed, incarnation: LIFE, process: 7, is_heard: true });
        decide(own, &hello(other), dialed, present)
    }

    #[test]
    fn the_only_link_is_accepted() {
        for dialed in [true, false] {
            assert_eq!(decided(SMALL, LARGE, dialed, None), Choice::Take);
        }
    }

    #[test]
    fn both_ends_keep_the_link_dialed_by_the_smaller_id() {
        let (replace, refuse) = (Choice::Replace(LinkId(1)), Choice::Refuse(LinkEnd::Double));
        // The new link was dialed by the hub with the smaller id.
        assert_eq!(decided(SMALL, LARGE, true, Some(false)), replace);
        assert_eq!(decided(LARGE, SMALL, false, Some(true)), replace);
        // The new link was dialed by the hub with the larger id.
        assert_eq!(decided(LARGE, SMALL, true, Some(false)), refuse);
        assert_eq!(decided(SMALL, LARGE, false, Some(true)), refuse);
    }

    #[test]
    fn a_hub_with_a_dialed_link_refuses_a_second_dialed_link() {
        assert_eq!(decided(SMALL, LARGE, true, Some(true)), Choice::Refuse(LinkEnd::Double));
        assert_eq!(decided(LARGE, SMALL, true, Some(true)), Choice::Refuse(LinkEnd::Double));
    }

    #[test]
    fn a_second_dial_replaces_the_first_link() {
        assert_eq!(decided(SMALL, LARGE, false, Some(false)), Choice::Replace(LinkId(1)));
        assert_eq!(decided(LARGE, SMALL, false, Some(false)), Choice::Replace(LinkId(1)));
    }

    #[test]
    fn a_link_of_an_earlier_incarnation_is_replaced() {
        for (own, other) in [(SMALL, LARGE), (LARGE, SMALL)] {
            for (dialed, present) in [(true, true), (true, false), (false, true), (false, false)] {
                let (process, is_heard) = (6, false);
                let incarnation = HubIncarnation(4);
                let present = Present { link: LinkId(1), dialed: present, incarnation, process, is_heard };
                assert_eq!(decide(own, &hello(other), dialed, Some(present)), Choice::Replace(LinkId(1)));
                // A link on which data still arrives is not dead.
                let present = Present { is_heard: true, ..present };
                assert_eq!(decide(own, &hello(other), dialed, Some(present)), Choice::Take);
            }
        }
    }
}
