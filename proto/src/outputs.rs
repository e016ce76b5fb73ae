//! The queue of outputs of a router or relay.

use std::collections::VecDeque;

/// A queue that counts added and taken outputs, so that outputs removed in any other way are detected.
#[derive(Debug)]
pub(crate) struct Outputs<T> {
    queue: VecDeque<T>,
    put: u64,
    taken: u64,
}

impl<T> Default for Outputs<T> {
    fn default() -> Self {
        Self { queue: VecDeque::new(), put: 0, taken: 0 }
    }
}

impl<T> Outputs<T> {
    pub(crate) fn push_back(&mut self, output: T) {
        self.put += 1;
        self.queue.push_back(output);
    }

    pub(crate) fn pop_front(&mut self) -> Option<T> {
        let output = self.queue.pop_front()?;
        self.taken += 1;
        Some(output)
    }

    /// Number of queued outputs.
    pub(crate) fn len(&self) -> usize {
        self.queue.len()
    }

    /// Removes all outputs, as a bug would do.
    #[cfg(test)]
    pub(crate) fn clear(&mut self) {
        self.queue.clear();
    }

    /// Number of outputs that were removed without being taken since the last call of this function.
    pub(crate) fn take_lost(&mut self) -> u64 {
        let lost = self.put - self.taken - self.queue.len() as u64;
        self.taken += lost;
        lost
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outputs_removed_by_other_means_are_detected() {
        let mut outputs = Outputs::default();
        (0..3).for_each(|n| outputs.push_back(n));
        assert_eq!((outputs.pop_front(), outputs.len(), outputs.take_lost()), (Some(0), 2, 0));
        outputs.clear();
        assert_eq!((outputs.pop_front(), outputs.take_lost(), outputs.take_lost()), (None, 2, 0));
    }
}
