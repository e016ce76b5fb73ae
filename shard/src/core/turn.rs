//! The turn that runs: what it has done, and how long turns take.

use std::cell::{Cell, RefCell};
use std::time::Duration;

use proto::Turns;

#[derive(Debug, Default)]
pub(super) struct Turn {
    /// Outputs of the router that it has carried out.
    pub(super) outputs: usize,
    /// Whether it has begun and the clock has not been read yet.
    is_new: Cell<bool>,
    lengths: RefCell<Turns>,
}

impl Turn {
    pub(super) fn begin(&mut self) {
        self.outputs = 0;
        self.is_new.set(true);
    }

    /// Records a reading of the clock. The first one in a turn counts as its beginning.
    pub(super) fn look(&self, at: Duration) {
        if self.is_new.take() {
            self.lengths.borrow_mut().begin(at, thread::take_idle());
        }
    }

    pub(super) fn lengths(&self) -> Turns {
        self.lengths.borrow().clone()
    }
}
