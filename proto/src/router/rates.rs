//! Rate limits of one session.

use std::time::Duration;

use crate::limits::{
    ANNOUNCE_BURST_BYTES, ANNOUNCE_RATE_BYTES, ERROR_BURST, ERROR_RATE, MEMBER_BYTES, MESSAGE_BURST_LARGEST,
    MESSAGE_BURST_SECS, RATE_LIMIT_PATIENCE, RATE_LIMIT_PAUSE,
};
use crate::reason::ErrorCode;
use crate::sentences;

use super::RouterConfig;

/// A session's use of its rate limits.
#[derive(Debug, Default)]
pub(super) struct Rates {
    messages: Throttle,
    bytes: Throttle,
    announced: Throttle,
    errors: Throttle,
    overrun: Option<Overrun>,
}

impl Rates {
    /// Takes a message of `bytes` bytes, unless it exceeds MESSAGE_RATE, MESSAGE_RATE_BYTES or, for an announcement,
    /// [`ANNOUNCE_RATE_BYTES`].
    ///
    /// # Errors
    ///
    /// Returns the sentence of the limit that the message exceeds.
    pub(super) fn take_message(
        &mut self,
        bytes: u64,
        is_announcement: bool,
        config: &RouterConfig,
        now: Duration,
    ) -> Result<(), &'static str> {
        let &RouterConfig { message_rate, message_rate_bytes, max_message_bytes, .. } = config;
        let (rate, burst) = (u64::from(message_rate), u64::from(MESSAGE_BURST_SECS));
        let largest = MESSAGE_BURST_LARGEST * max_message_bytes as u64;
        let announced = bytes + MEMBER_BYTES as u64;
        if !self.messages.take(now, 1, rate, burst * rate) {
            Err(ErrorCode::RateLimited.explain())
        } else if !self.bytes.take(now, bytes, message_rate_bytes, largest.max(burst * message_rate_bytes)) {
            Err(sentences::TOO_MANY_BYTES)
        } else if is_announcement && !self.announced.take(now, announced, ANNOUNCE_RATE_BYTES, ANNOUNCE_BURST_BYTES) {
            Err(sentences::ANNOUNCED_TOO_OFTEN)
        } else {
            Ok(())
        }
    }

    /// Records a message that exceeded a limit. Returns true if messages have exceeded it for [`RATE_LIMIT_PATIENCE`]
    /// without a pause of [`RATE_LIMIT_PAUSE`].
    pub(super) fn note_refused(&mut self, now: Duration) -> bool {
        let kept = self.overrun.filter(|overrun| now.saturating_sub(overrun.last) < RATE_LIMIT_PAUSE);
        let noted = Overrun { since: kept.map_or(now, |overrun| overrun.since), last: now };
        self.overrun = Some(noted);
        now.saturating_sub(noted.since) >= RATE_LIMIT_PATIENCE
    }

    /// Takes one `error` message to the session. Returns false if it has received too many.
    pub(super) fn take_error(&mut self, now: Duration) -> bool {
        self.errors.take(now, 1, ERROR_RATE, ERROR_BURST)
    }
}

/// A token bucket, stored as the time at which it will be full again.
#[derive(Clone, Copy, Debug, Default)]
struct Throttle {
    full_at: Duration,
}

impl Throttle {
    /// Takes `n` tokens from a bucket that refills at `rate` per second up to `burst`. Returns false if it has fewer.
    /// All values are at most 10^10.
    fn take(&mut self, now: Duration, n: u64, rate: u64, burst: u64) -> bool {
        let time = |tokens: u64| Duration::from_nanos(tokens.saturating_mul(1_000_000_000) / rate.max(1));
        let full_at = self.full_at.max(now) + time(n);
        if full_at - now > time(burst.max(1)) {
            return false;
        }
        self.full_at = full_at;
        true
    }
}

/// The period in which messages of a session exceeded a limit.
#[derive(Clone, Copy, Debug)]
struct Overrun {
    since: Duration,
    last: Duration,
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Duration = Duration::from_secs(100);

    #[test]
    fn a_bucket_holds_its_burst_and_refills_at_its_rate() {
        let mut bucket = Throttle::default();
        assert!((0..20).all(|_| bucket.take(START, 1, 10, 20)));
        assert!(!bucket.take(START, 1, 10, 20));
        let later = START + Duration::from_millis(500);
        assert!((0..5).all(|_| bucket.take(later, 1, 10, 20)));
        assert!(!bucket.take(later, 1, 10, 20));
        assert!(bucket.take(later + Duration::from_secs(60), 20, 10, 20), "it was full again");
    }

    #[test]
    fn refusals_without_a_pause_exhaust_patience() {
        let mut rates = Rates::default();
        let step = RATE_LIMIT_PAUSE / 2;
        let mut now = START;
        while now < START + RATE_LIMIT_PATIENCE {
            assert!(!rates.note_refused(now), "{now:?}");
            now += step;
        }
        assert!(rates.note_refused(now));
        assert!(!rates.note_refused(now + RATE_LIMIT_PAUSE), "after a pause the period starts again");
    }
}
