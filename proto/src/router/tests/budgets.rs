//! Tests of the cost of messages, and of the budget for announced data.

use super::*;
use crate::budget::BudgetOwner;
use crate::limits::{ANNOUNCE_COST_BYTES, ANNOUNCE_FLOOR_BYTES, MEMBER_BYTES, RATE_LIMIT_PAUSE};

fn exceeded(day: &mut Day, owner: BudgetOwner, item: BudgetItem) -> u64 {
    day.router.stats().exceeded[owner as usize][item as usize]
}

#[test]
fn an_announcement_costs_its_bytes_and_a_fixed_number_more() {
    let cost = ANNOUNCE.len() as u64 + ANNOUNCE_COST_BYTES;
    for (burst, refused) in [(2 * cost, 1), (2 * cost - 1, 2), (3 * cost, 0)] {
        let mut day = Day::new(8);
        day.router.config.budget = day.router.config.budget.with(BudgetItem::Announcements, Allowance::new(1, burst));
        day.now = Duration::from_secs(1_000_000);
        day.opens(session(0, 0), 1);
        for _ in 0..3 {
            day.says(session(0, 0), ANNOUNCE);
            day.says(session(0, 0), r#"{"type":"ping"}"#);
        }
        assert_eq!(exceeded(&mut day, BudgetOwner::Session, BudgetItem::Announcements), refused, "{burst}");
        assert_eq!(day.router.stats().errors[ErrorCode::RateLimited as usize], refused, "{burst}");
    }
}

#[test]
fn a_goodbye_costs_its_data_for_each_member_of_its_networks() {
    let members = 3;
    let data = r#""so long""#;
    let goodbye = format!(r#"{{"type":"goodbye","networkName":"n","data":{data}}}"#);
    let cost = (data.len() + MEMBER_BYTES) as u64 * members;
    // After the goodbye, one byte of the burst of events is left in the first case, and nothing in the second case.
    for (burst, refused) in [(cost + 1, 0), (cost, 1)] {
        let mut day = Day::new(8);
        day.now = Duration::from_secs(1_000_000);
        for n in 0..members as u8 {
            day.opens(session(n.into(), 0), n + 1);
            day.says(session(n.into(), 0), ANNOUNCE);
        }
        day.router.config.budget = day.router.config.budget.with(BudgetItem::Events, Allowance::new(1, burst));
        day.says(session(0, 0), &goodbye);
        day.says(session(0, 0), ANNOUNCE);
        assert_eq!(exceeded(&mut day, BudgetOwner::Session, BudgetItem::Events), refused, "{burst}");
    }
}

#[test]
fn a_session_may_announce_little_data_even_if_the_hubs_budget_is_exhausted() {
    let announce = |network: usize, bytes: usize| {
        format!(r#"{{"type":"announce","networkName":"{network}","data":{{"a":"{}"}}}}"#, "x".repeat(bytes))
    };
    let full = |day: &mut Day| day.router.stats().errors[ErrorCode::HubFull as usize];
    let mut day = Day::new(8);
    day.router.config.announce_budget_bytes = 0;
    day.opens(session(0, 0), 1);
    day.says(session(0, 0), &announce(0, 10));
    assert_eq!(full(&mut day), 0);
    let announced = |day: &mut Day| day.router.stats().announced_bytes as usize;
    let one = announced(&mut day);
    // The announcement in the second network first exceeds the floor by a byte, and then fills it exactly.
    day.says(session(0, 0), &announce(1, ANNOUNCE_FLOOR_BYTES - 2 * one + 11));
    assert_eq!((full(&mut day), announced(&mut day)), (1, one));
    day.says(session(0, 0), &announce(1, ANNOUNCE_FLOOR_BYTES - 2 * one + 10));
    assert_eq!((full(&mut day), announced(&mut day)), (1, ANNOUNCE_FLOOR_BYTES));
    // The hub's budget now has room for an announcement with 10 bytes, but not with 11.
    day.router.config.announce_budget_bytes = ANNOUNCE_FLOOR_BYTES + one;
    day.says(session(0, 0), &announce(2, 11));
    assert_eq!(full(&mut day), 2);
    day.says(session(0, 0), &announce(2, 10));
    assert_eq!((full(&mut day), announced(&mut day)), (2, ANNOUNCE_FLOOR_BYTES + one));
}

#[test]
fn errors_above_the_limit_are_counted_and_not_sent() {
    let mut day = Day::new(8);
    day.opens(session(0, 0), 1);
    let most = u64::from(DEFAULT_ERROR_RATE) * ERROR_BURST_SECS;
    for _ in 0..most + 3 {
        day.says(session(0, 0), r#"{"type":"what"}"#);
    }
    let stats = day.router.stats();
    let exceeded = stats.exceeded[crate::budget::BudgetOwner::Session as usize][BudgetItem::Errors as usize];
    assert_eq!((stats.errors_withheld, exceeded), (3, 3));
}

#[test]
fn the_peer_with_the_most_refused_messages_is_named_until_it_pauses() {
    let mut day = Day::new(8);
    day.router.config.budget = day.router.config.budget.with(BudgetItem::Messages, Allowance::new(1, 1));
    day.now = Duration::from_secs(1_000_000);
    let flooder = |day: &mut Day| day.router.stats().flooder.map(|flooder| (flooder.peer, flooder.refused));
    let floods = |day: &mut Day, n: u64, messages: u64| {
        for _ in 0..messages {
            day.says(session(n as u32, 0), r#"{"type":"ping"}"#);
        }
    };
    day.opens(session(0, 0), 1);
    day.opens(session(1, 0), 2);
    // The budget allows one message.
    floods(&mut day, 0, 1);
    assert_eq!(flooder(&mut day), None);
    floods(&mut day, 0, 3);
    assert_eq!(flooder(&mut day), Some((peer(1), 3)));
    floods(&mut day, 1, 1 + 2);
    assert_eq!(flooder(&mut day), Some((peer(1), 3)), "the second peer has fewer refused messages");
    floods(&mut day, 1, 2);
    assert_eq!(flooder(&mut day), Some((peer(2), 4)));
    assert_eq!(day.router.stats().flooder.unwrap().at, day.now);
    day.now += RATE_LIMIT_PAUSE - Duration::from_millis(1);
    floods(&mut day, 0, 1);
    assert_eq!(flooder(&mut day), Some((peer(1), 4)), "both peers have four refused messages, and peer 1 the latest");
    floods(&mut day, 1, 3);
    day.now += RATE_LIMIT_PAUSE;
    floods(&mut day, 0, 2);
    assert_eq!(flooder(&mut day), Some((peer(1), 1)), "the second peer has paused");
}
