//! Decides when a certificate is renewed, and when a failed order is repeated.

use std::time::{Duration, SystemTime};

use proto::limits::{ACME_ASK_INTERVALS, ACME_PAUSES};
use tls::{CertificateFacts, CertificateId};

/// The time of a certificate's renewal.
#[derive(Debug)]
pub(super) struct Plan {
    not_after: SystemTime,
    renew_at: SystemTime,
    id: Option<CertificateId>,
    /// Whether the authority knows this id. It knows the id if it has answered a question about it.
    is_known: bool,
    ask_at: SystemTime,
}

impl Plan {
    /// Plans the renewal after two thirds of the certificate's life, or up to a twentieth of its life earlier. The time
    /// is random, so that hubs that started together do not renew together. `chance` is a random number.
    pub(super) fn new(facts: &CertificateFacts, chance: u32) -> Self {
        let life = facts.not_after.duration_since(facts.not_before).unwrap_or_default();
        let earlier = (life / 20).mul_f64(f64::from(chance) / f64::from(u32::MAX));
        Self {
            not_after: facts.not_after,
            renew_at: facts.not_before + life * 2 / 3 - earlier,
            id: facts.id.clone(),
            is_known: false,
            ask_at: SystemTime::UNIX_EPOCH,
        }
    }

    /// Whether the plan is for this certificate.
    pub(super) fn is_for(&self, facts: &CertificateFacts) -> bool {
        (self.not_after, &self.id) == (facts.not_after, &facts.id)
    }

    pub(super) fn has_expired(&self) -> bool {
        self.not_after <= SystemTime::now()
    }

    /// Time until the renewal. Zero if it is due.
    pub(super) fn until_due(&self) -> Duration {
        self.renew_at.duration_since(SystemTime::now()).unwrap_or_default()
    }

    /// Whether the authority should be asked when to renew.
    pub(super) fn wants_advice(&self) -> bool {
        self.id.is_some() && self.ask_at <= SystemTime::now()
    }

    /// Follows the authority's advice. The hub renews within `window`, and asks the authority again after `ask_after`
    /// (RFC 9773).
    pub(super) fn advise(&mut self, window: [SystemTime; 2], ask_after: Duration, chance: u32) {
        let [start, end] = window;
        let length = end.duration_since(start).unwrap_or_default();
        let chosen = start + length.mul_f64(f64::from(chance) / f64::from(u32::MAX));
        // A renewal time inside the window stays unchanged. If the time were always drawn anew, each answer of the
        // authority would change it.
        if !(start..=end).contains(&self.renew_at) {
            // A window after the expiry is an error of the authority, and is ignored.
            self.renew_at = if chosen < self.not_after { chosen } else { self.renew_at };
        }
        self.is_known = true;
        let [shortest, longest] = ACME_ASK_INTERVALS;
        self.ask_at = SystemTime::now() + ask_after.clamp(shortest, longest);
    }

    /// Schedules the next question to the authority, after a question without an answer.
    pub(super) fn ask_later(&mut self) {
        self.ask_at = SystemTime::now() + ACME_ASK_INTERVALS[1];
    }

    /// The id under which the authority knows the certificate. An order that names this id is exempt from most rate
    /// limits of the authority.
    pub(super) fn replaceable(&self) -> Option<&CertificateId> {
        self.id.as_ref().filter(|_| self.is_known)
    }
}

/// Returns the pause before a failed order is repeated. `failures` is the number of failed orders before this order.
/// Each failure doubles the pause, up to a maximum. Up to a quarter of the pause is added at random, so that hubs do
/// not repeat their orders at the same time. `chance` is a random number.
pub(super) fn pause(failures: u32, chance: u32) -> Duration {
    let [first, longest] = ACME_PAUSES;
    let pause = first.saturating_mul(2_u32.saturating_pow(failures)).min(longest);
    pause + (pause / 4).mul_f64(f64::from(chance) / f64::from(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_secs(86_400);

    fn facts(age: u32, life: u32) -> CertificateFacts {
        let not_before = SystemTime::now() - age * DAY;
        let id = Some(CertificateId { authority_key: vec![1], serial: vec![2] });
        CertificateFacts { file: "f".into(), names: Vec::new(), not_before, not_after: not_before + life * DAY, id }
    }

    fn days(plan: &Plan) -> f64 {
        plan.until_due().as_secs_f64() / DAY.as_secs_f64()
    }

    #[test]
    fn a_certificate_is_renewed_after_two_thirds_of_its_life_or_slightly_earlier() {
        assert!((days(&Plan::new(&facts(0, 90), 0)) - 60.0).abs() < 0.01);
        assert!((days(&Plan::new(&facts(0, 90), u32::MAX)) - 55.5).abs() < 0.01);
        assert!((days(&Plan::new(&facts(0, 6), 0)) - 4.0).abs() < 0.01);
        let due = Plan::new(&facts(61, 90), 0);
        assert!(due.until_due().is_zero() && !due.has_expired());
        assert!(Plan::new(&facts(91, 90), 0).has_expired());
    }

    #[test]
    fn the_authority_may_advise_another_renewal_time() {
        let facts = facts(0, 90);
        let mut plan = Plan::new(&facts, 0);
        assert!(plan.wants_advice() && plan.replaceable().is_none());
        let day = |n: u32| facts.not_before + n * DAY;
        plan.advise([day(20), day(30)], Duration::ZERO, u32::MAX / 2);
        assert!((days(&plan) - 25.0).abs() < 0.01, "{}", days(&plan));
        assert!(!plan.wants_advice() && plan.replaceable().is_some());
        plan.advise([day(20), day(30)], Duration::ZERO, 0);
        assert!((days(&plan) - 25.0).abs() < 0.01, "a renewal time inside the window stays unchanged");
        // A window in the past means that the certificate will be revoked soon, so it must be renewed now.
        plan.advise([day(0) - DAY, day(0) - DAY], Duration::ZERO, 0);
        assert!(plan.until_due().is_zero());
        let mut plan = Plan::new(&facts, 0);
        plan.advise([day(100), day(101)], Duration::ZERO, 0);
        assert!((days(&plan) - 60.0).abs() < 0.01, "a window after the expiry is ignored");
        assert!(plan.is_for(&facts) && !plan.is_for(&self::facts(1, 90)));
    }

    #[test]
    fn pauses_after_failures_double_up_to_a_maximum() {
        let minutes = |failures| pause(failures, 0).as_secs() / 60;
        assert_eq!([0, 1, 2, 3, 4, 5, 6, 7, 40].map(minutes), [2, 4, 8, 16, 32, 64, 128, 240, 240]);
        assert_eq!(pause(0, u32::MAX), Duration::from_secs(150));
    }
}
