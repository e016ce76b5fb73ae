//! Executes the orders of operators.

use proto::limits::SHARD_TURN_NANOS;
use proto::{Acted, Input, Order, bug};
use thread::{TurnGuard, planted};
use tokio::sync::oneshot;

use super::Core;

impl Core {
    /// Executes an operator's order, and answers when it is done.
    pub(crate) fn ordered(&mut self, order: Order, done: oneshot::Sender<Acted>) {
        self.begin_turn(SHARD_TURN_NANOS);
        let now = self.now();
        let _turn = TurnGuard::of("order", ());
        planted("order");
        self.acting.push_back((order.clone(), done));
        self.input(Input::Order(order), now);
    }

    pub(super) fn acted(&mut self, acted: Acted) {
        // The oldest order is not always the first that is done: a kick is executed at once, even while a network is
        // being closed.
        let answered = self.acting.iter().position(|(order, _)| acted.answers(order));
        match answered.and_then(|at| self.acting.remove(at)) {
            // The hub may no longer wait for the answer.
            Some((_, done)) => _ = done.send(acted),
            None => bug!(self.bugs, OrderAnswer, "{acted:?}"),
        }
    }
}
