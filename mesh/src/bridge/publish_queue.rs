//! The queue of frames to be published.

use std::collections::{BTreeMap, VecDeque};

use proto::HubId;
use proto::limits::{BRIDGE_FRAME_BYTES, BRIDGE_PIPELINE_BYTES, BRIDGE_QUEUE_BYTES};

use super::frame::{PREFIX, Seal};

/// The channel of one hub, or of all hubs.
pub(super) type To = Option<HubId>;

/// Frames per channel, in the order of their envelopes. Channels take turns.
#[derive(Default)]
pub(super) struct PublishQueue {
    lanes: BTreeMap<To, Lane>,
    /// Channels that have frames and whose lanes are not busy.
    turns: VecDeque<To>,
    waiting_bytes: usize,
    under_way_bytes: usize,
    /// Whether envelopes for a single hub were appended after the last [`fence`](Self::fence) and are still queued.
    unfenced: bool,
}

#[derive(Default)]
struct Lane {
    frames: VecDeque<Vec<u8>>,
    /// Whether the lane is in [`PublishQueue::turns`].
    listed: bool,
    /// Whether frames of the lane are being published. Other frames of a busy lane wait until Redis has accepted the
    /// published frames.
    busy: bool,
    /// Whether the next envelope starts a new frame.
    fenced: bool,
}

impl PublishQueue {
    /// Appends one envelope. Returns false if the queue is full.
    pub(super) fn push(&mut self, to: To, seal: &Seal, write: impl FnOnce(&mut Vec<u8>)) -> bool {
        if self.bytes() >= BRIDGE_QUEUE_BYTES {
            return false;
        }
        self.unfenced |= to.is_some();
        let lane = self.lanes.entry(to).or_default();
        let fenced = std::mem::take(&mut lane.fenced);
        let frame = match lane.frames.back_mut() {
            Some(frame) if !fenced && frame.len() < BRIDGE_FRAME_BYTES => frame,
            _ => {
                self.waiting_bytes += PREFIX;
                lane.frames.push_back_mut(seal.begin())
            }
        };
        let before = frame.len();
        write(frame);
        self.waiting_bytes += frame.len() - before;
        if !lane.listed && !lane.busy {
            lane.listed = true;
            self.turns.push_back(to);
        }
        true
    }

    /// Makes the next envelope for all hubs follow the first queued frame for each single hub.
    ///
    /// Ends the open frame for all hubs, if there is one. Channels send one frame each in turn, so a new frame for all
    /// follows the first queued frame of each hub. In a cluster, channels are at different nodes, so frames of
    /// different channels have no order.
    pub(super) fn fence(&mut self) {
        if std::mem::take(&mut self.unfenced)
            && let Some(lane) = self.lanes.get_mut(&None)
        {
            lane.fenced = true;
        }
    }

    /// Bytes that Redis has not accepted.
    pub(super) fn bytes(&self) -> usize {
        self.waiting_bytes + self.under_way_bytes
    }

    /// Takes the frames of one pipeline, one per channel in turn. The bytes of these frames count as queued until the
    /// frames are [`accepted`](Self::accepted).
    pub(super) fn take(&mut self) -> Vec<(To, Vec<u8>)> {
        let mut frames = Vec::new();
        let mut bytes = 0;
        while bytes < BRIDGE_PIPELINE_BYTES
            && let Some(to) = self.turns.pop_front()
            && let Some(lane) = self.lanes.get_mut(&to)
        {
            if let Some(frame) = lane.frames.pop_front() {
                bytes += frame.len();
                frames.push((to, frame));
            }
            if lane.frames.is_empty() {
                self.lanes.remove(&to);
            } else {
                self.turns.push_back(to);
            }
        }
        self.depart(bytes);
        frames
    }

    /// Takes the frames of one pipeline, all of one channel. The lane of that channel is busy until the frames are
    /// accepted.
    pub(super) fn take_lane(&mut self) -> Vec<(To, Vec<u8>)> {
        let mut frames = Vec::new();
        let mut bytes = 0;
        if let Some(to) = self.turns.pop_front()
            && let Some(lane) = self.lanes.get_mut(&to)
        {
            (lane.listed, lane.busy) = (false, true);
            while bytes < BRIDGE_PIPELINE_BYTES
                && let Some(frame) = lane.frames.pop_front()
            {
                bytes += frame.len();
                frames.push((to, frame));
            }
        }
        self.depart(bytes);
        frames
    }

    fn depart(&mut self, bytes: usize) {
        // If no frames for single hubs are queued, the next envelope for all hubs need not wait.
        self.unfenced &= self.lanes.iter().any(|(to, lane)| to.is_some() && !lane.frames.is_empty());
        self.waiting_bytes -= bytes;
        self.under_way_bytes += bytes;
    }

    /// Records that Redis has accepted or refused frames with this number of bytes.
    pub(super) fn accepted(&mut self, bytes: usize) {
        self.under_way_bytes = self.under_way_bytes.saturating_sub(bytes);
    }

    /// Allows this channel to send its next frames.
    pub(super) fn release(&mut self, to: To) {
        let Some(lane) = self.lanes.get_mut(&to) else { return };
        lane.busy = false;
        if lane.frames.is_empty() {
            self.lanes.remove(&to);
        } else {
            lane.listed = true;
            self.turns.push_back(to);
        }
    }

    /// Drops all frames.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use proto::PeerId;

    use super::*;

    fn hub(n: u8) -> To {
        Some(HubId(PeerId::from_bytes([n; 20])))
    }

    fn queue(pushes: &[(To, usize)]) -> PublishQueue {
        let seal = Seal::new(HubId(PeerId::from_bytes([9; 20])), None, None);
        let mut queue = PublishQueue::default();
        for (to, len) in pushes {
            assert!(queue.push(*to, &seal, |out| out.resize(out.len() + len, 7)));
        }
        queue
    }

    fn sizes(frames: &[(To, Vec<u8>)]) -> Vec<(To, usize)> {
        frames.iter().map(|(to, frame)| (*to, frame.len() - PREFIX)).collect()
    }

    #[test]
    fn envelopes_share_frames_until_one_is_full_and_channels_take_turns() {
        let full = BRIDGE_FRAME_BYTES;
        let mut queue = queue(&[(None, 10), (None, full), (hub(1), 5), (None, 20), (hub(1), 6)]);
        assert_eq!(queue.bytes(), full + 41 + 3 * PREFIX);
        let frames = queue.take();
        assert_eq!(sizes(&frames), [(None, full + 10), (hub(1), 11), (None, 20)]);
        assert_eq!(queue.bytes(), full + 41 + 3 * PREFIX);
        queue.accepted(queue.bytes());
        assert_eq!(queue.bytes(), 0);
        assert!(queue.lanes.is_empty() && queue.turns.is_empty() && queue.take().is_empty());
    }

    #[test]
    fn after_a_fence_frames_for_all_hubs_follow_frames_for_single_hubs() {
        let mut queue = queue(&[(None, 10), (hub(1), 5)]);
        let seal = Seal::new(HubId(PeerId::from_bytes([9; 20])), None, None);
        queue.fence();
        // Nothing was appended for a single hub since the fence, so both envelopes share one frame.
        for len in [3, 4] {
            assert!(queue.push(None, &seal, |out| out.resize(out.len() + len, 7)));
            queue.fence();
        }
        assert_eq!(sizes(&queue.take()), [(None, 10), (hub(1), 5), (None, 7)]);
        assert!(queue.push(hub(1), &seal, |out| out.push(7)));
        queue.fence();
        assert!(queue.push(None, &seal, |out| out.push(7)));
        assert_eq!(sizes(&queue.take()), [(hub(1), 1), (None, 1)]);
    }

    #[test]
    fn a_fence_does_not_split_frames_once_earlier_frames_were_taken() {
        let seal = Seal::new(HubId(PeerId::from_bytes([9; 20])), None, None);
        let mut queue = queue(&[(hub(1), 5)]);
        assert_eq!(sizes(&queue.take()), [(hub(1), 5)]);
        let push = |queue: &mut PublishQueue| assert!(queue.push(None, &seal, |out| out.push(7)));
        push(&mut queue);
        queue.fence();
        push(&mut queue);
        assert_eq!(sizes(&queue.take()), [(None, 2)]);
    }

    #[test]
    fn only_frames_of_a_busy_lane_wait() {
        let mut queue = queue(&[(None, 1), (hub(1), 2)]);
        let seal = Seal::new(HubId(PeerId::from_bytes([9; 20])), None, None);
        assert_eq!(sizes(&queue.take_lane()), [(None, 1)]);
        assert!(queue.push(None, &seal, |out| out.extend_from_slice(b"abc")));
        assert_eq!(sizes(&queue.take_lane()), [(hub(1), 2)]);
        assert_eq!(sizes(&queue.take_lane()), []);
        queue.release(None);
        assert_eq!(sizes(&queue.take_lane()), [(None, 3)]);
        queue.release(None);
        queue.release(hub(1));
        assert!(queue.lanes.is_empty() && queue.turns.is_empty());
    }

    #[test]
    fn a_full_queue_refuses_envelopes() {
        let seal = Seal::new(HubId(PeerId::from_bytes([9; 20])), None, None);
        let mut queue = queue(&[(None, BRIDGE_QUEUE_BYTES)]);
        assert!(!queue.push(hub(1), &seal, |out| out.push(1)));
        queue.clear();
        assert_eq!(queue.bytes(), 0);
        assert!(queue.push(hub(1), &seal, |out| out.push(1)));
    }
}
