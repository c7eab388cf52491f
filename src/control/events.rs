//! What whoever listens is told of calls: `call.ended`, with all that `GET /api/sessions/{callId}` says of it.

use crate::io::{Node, Output};
use crate::messages::{CallReport, Event, Message};

use super::Control;
use super::calls::Phase;

impl Control {
    /// A call is over: tells so once, where somebody listens. What becomes of it is not control's concern.
    pub(super) fn tell_of_end(&mut self, report: &CallReport) {
        if self.config.events.is_none() {
            return;
        }
        let Some(call) = self.calls.by_number(report.call) else { return };
        if matches!(call.phase, Phase::Ended { .. }) {
            return;
        }
        let event = Event { name: "call.ended", log_id: call.log_id, call: call.view(report).bytes() };
        self.outputs.push_back(Output::Message { to: Node::Events, message: Message::Event(event) });
    }
}
