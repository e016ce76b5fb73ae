use clap::{CommandFactory, Parser};

use super::swarm::Membership;
use super::*;

#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    args: Args,
}

fn args(line: &str) -> Args {
    Cli::try_parse_from(["load-test"].into_iter().chain(line.split_whitespace())).unwrap().args
}

fn planned(line: &str) -> Result<(usize, usize), String> {
    plan(&args(line)).map(|(plan, _)| (plan.peers(), plan.networks()))
}

#[test]
fn clap_accepts_the_arguments() {
    Cli::command().debug_assert();
    let args = args("--hub ws://a:1 --hub ws://b:1 --peers 50 --duration 15 --interval 0.5");
    assert_eq!((args.hubs.len(), args.duration.as_secs(), args.interval.as_millis()), (2, 15, 500));
}

#[test]
fn the_default_number_of_networks_depends_on_the_scenario() {
    assert_eq!(planned("--peers 100 --seed 1"), Ok((100, 1)));
    assert_eq!(planned("--peers 100 --scenario relay"), Ok((100, 50)));
    assert_eq!(planned("--peers 101 --scenario churn"), Ok((101, 3)));
    assert_eq!(planned("--peers 101 --scenario idle"), Ok((101, 2)));
    assert_eq!(planned("--peers 10 --networks 10"), Ok((10, 10)));
}

#[test]
fn invalid_arguments_are_refused_before_connecting() {
    for (line, flag) in [
        ("--peers 3 --scenario relay", "--peers"),
        ("--peers 10 --networks 11", "--networks"),
        ("--peers 10 --scenario relay --networks 6", "--networks"),
        ("--peers 10 --scenario churn --networks 6", "--networks"),
        ("--size 2000000", "--size"),
    ] {
        let problem = planned(line).unwrap_err();
        assert!(problem.starts_with(flag), "{line}: {problem}");
    }
}

/// With `pairs`, peers 0 and 1 are in one network, and peers 2 and 3 are in another. Without, peers 0 and 2 are in one
/// network, and peers 1 and 3 are in another. All four peers have announced.
fn swarm(pairs: bool) -> Swarm {
    let spread = if pairs { Spread::Pairs } else { Spread::Single };
    let swarm = Swarm::new(Plan::new(4, 2, spread, 1), Options { pairs, ..Options::default() }, Vec::new());
    for peer in 0..4 {
        swarm.announce(peer);
        swarm.enter(peer);
    }
    swarm
}

/// A message that the hub sends to the peer `to` about the peer `about`.
fn message(swarm: &Swarm, kind: &str, about: usize, to: usize) -> String {
    let (about, target, network) = (swarm.plan.id(about), swarm.plan.id(to), swarm.plan.network_name(to));
    let from = format!(r#""fromPeerId":"{about}","targetPeerId":"{target}","networkName":"{network}""#);
    match kind {
        "goodbye" => format!(r#"{{"type":"{kind}","data":null,"fromPeerId":"{about}","networkName":"{network}"}}"#),
        "offer" => format!(r#"{{"type":"{kind}","data":{{"n":0,"t":1}},{from}}}"#),
        _ => format!(
            r#"{{"type":"{kind}","data":{{"peerId":"{about}"}},"fromPeerId":"system","networkName":"{network}"}}"#
        ),
    }
}

fn hear(swarm: &Swarm, to: usize, text: &str) {
    swarm.hear(to, &mut text.as_bytes().to_vec());
}

fn violations(swarm: &Swarm) -> Vec<(Check, u64)> {
    swarm.tally.borrow().violations.iter().map(|(check, violations)| (*check, violations.count)).collect()
}

#[test]
fn a_complete_run_has_no_violations() {
    let swarm = swarm(false);
    assert_eq!(swarm.expected(), 4);
    for (to, about) in [(0, 2), (2, 0), (1, 3)] {
        hear(&swarm, to, &message(&swarm, "peer-discovered", about, to));
        assert!(!swarm.is_exact());
    }
    swarm.compare_all();
    assert_eq!(violations(&swarm), [(Check::Missing, 1)]);
    hear(&swarm, 3, &message(&swarm, "peer-discovered", 1, 3));
    assert!(swarm.is_exact());
}

#[test]
fn a_missing_leave_is_a_violation() {
    let swarm = swarm(false);
    for (to, about) in [(0, 2), (2, 0), (1, 3), (3, 1)] {
        hear(&swarm, to, &message(&swarm, "peer-discovered", about, to));
    }
    swarm.leave(2, Membership::Outside);
    assert!(!swarm.is_exact());
    swarm.compare_all();
    assert_eq!(violations(&swarm), [(Check::StillThere, 1)]);
    hear(&swarm, 0, &message(&swarm, "goodbye", 2, 0));
    assert!(swarm.is_exact());
    hear(&swarm, 0, &message(&swarm, "peer-disconnected", 2, 0));
    assert_eq!(violations(&swarm), [(Check::Ghost, 1), (Check::StillThere, 1)]);
}

#[test]
fn each_unexpected_message_has_its_violation() {
    let check = |expected: Check, to: usize, text: &dyn Fn(&Swarm) -> String| {
        let swarm = swarm(true);
        hear(&swarm, to, &text(&swarm));
        assert_eq!(violations(&swarm), [(expected, 1)]);
    };
    check(Check::Itself, 0, &|swarm| message(swarm, "peer-discovered", 0, 0));
    check(Check::Stranger, 0, &|swarm| message(swarm, "peer-discovered", 2, 0));
    check(Check::Stranger, 0, &|swarm| message(swarm, "peer-discovered", 1, 2));
    check(Check::Ghost, 0, &|swarm| message(swarm, "peer-disconnected", 1, 0));
    check(Check::Misaddressed, 0, &|swarm| message(swarm, "offer", 1, 2));
    check(Check::Misaddressed, 0, &|swarm| message(swarm, "offer", 2, 0));
    check(Check::ReceiptUnasked, 0, &|_| r#"{"type":"receipt","data":{"id":"0","outcome":"delivered"}}"#.to_owned());
    check(Check::Error, 0, &|_| r#"{"type":"error","data":{"code":"x"}}"#.to_owned());
    check(Check::Unreadable, 0, &|_| r#"{"type":"x"}"#.to_owned());
    check(Check::Unreadable, 0, &|_| "{".to_owned());
    check(Check::ToldOutside, 0, &|swarm| {
        swarm.leave(0, Membership::Outside);
        message(swarm, "peer-discovered", 1, 0)
    });
}

#[test]
fn signals_of_a_pair_arrive_once_and_in_order() {
    let swarm = swarm(true);
    let numbered = |number| message(&swarm, "offer", 1, 0).replace(r#""n":0"#, &format!(r#""n":{number}"#));
    hear(&swarm, 0, &numbered(0));
    assert_eq!(violations(&swarm), []);
    hear(&swarm, 0, &numbered(0));
    hear(&swarm, 0, &numbered(2));
    hear(&swarm, 0, &numbered(3));
    assert_eq!(violations(&swarm), [(Check::SignalSkipped, 1), (Check::SignalRepeated, 1)]);
    assert_eq!(swarm.tally.borrow().delivered, 4);
}
