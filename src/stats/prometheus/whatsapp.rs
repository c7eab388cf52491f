//! What control counts of calls by Meta's webhook, and how it is shown.
//!
//! Names and words alone; what an outcome means is known elsewhere.

use super::Text;

/// Calls by Meta's webhook, counted. Nothing of it is shown where there is no such webhook.
#[derive(Clone, Debug, Default)]
pub struct MetaStats {
    /// Whether the webhook is served.
    pub is_served: bool,
    /// Deliveries, by what was answered.
    pub deliveries: std::collections::BTreeMap<&'static str, u64>,
    /// Call events, by what they are and what was done.
    pub events: std::collections::BTreeMap<(&'static str, &'static str), u64>,
    /// Calls that came, by the name of their number.
    pub numbers: std::collections::BTreeMap<String, u64>,
    /// Call events that lacked what they must have.
    pub unusable: u64,
    /// Requests to the Graph API, by what was asked and what came of it.
    pub requests: std::collections::BTreeMap<(&'static str, &'static str), u64>,
    /// Calls that Meta may believe alive.
    pub alive: u64,
    /// Calls that an earlier process had left alive there.
    pub orphans: u64,
    /// Calls of whose end Meta could not be told.
    pub given_up: u64,
    /// Webhooks that wait to be passed on.
    pub forward_waiting: u64,
    /// Webhooks that their receiver took.
    pub forwarded: u64,
    /// Webhooks that it did not take, or not in time.
    pub forward_given_up: u64,
    /// Webhooks that held other things, where there was nobody to pass them on to.
    pub not_forwarded: u64,
}

impl MetaStats {
    /// Nothing has happened yet, and what may happen is shown as zero: a counter that only appears with its first event is
    /// one that no alert sees grow.
    ///
    /// `refusals` are the words for what `pre_accept` and `accept` may be refused with.
    pub fn served(refusals: impl Iterator<Item = &'static str>) -> Self {
        const DELIVERIES: [&str; 7] =
            ["taken", "bad_signature", "bad_webhook", "draining", "full", "overloaded", "forward_full"];
        const CONNECT: [&str; 9] =
            ["opened", "rejected", "refused", "repeated", "over", "stale", "elsewhere", "sent_on", "other_number"];
        const TERMINATE: [&str; 4] = ["ended", "repeated", "unknown", "other_number"];
        let actions = ["pre_accept", "accept", "reject", "terminate", "probe"];
        Self {
            is_served: true,
            deliveries: DELIVERIES.map(|outcome| (outcome, 0)).into(),
            events: (CONNECT.iter().map(|outcome| (("connect", *outcome), 0)))
                .chain(TERMINATE.iter().map(|outcome| (("terminate", *outcome), 0)))
                .collect(),
            requests: (actions.iter().flat_map(|action| ["ok", "unclear"].map(|outcome| ((*action, outcome), 0))))
                .chain(refusals.flat_map(|word| ["pre_accept", "accept"].map(|action| ((action, word), 0))))
                .collect(),
            ..Self::default()
        }
    }
}

/// Writes them.
pub(super) fn write(text: &mut Text, meta: &MetaStats) {
    text.family("whatsapp_webhooks_total", "counter", "Deliveries of Meta's webhook, by what was answered.");
    for (outcome, count) in &meta.deliveries {
        text.sample("whatsapp_webhooks_total", &[("outcome", outcome)], count);
    }
    text.family("whatsapp_call_events_total", "counter", "Call events of Meta's webhook, by what was done.");
    for ((event, outcome), count) in &meta.events {
        text.sample("whatsapp_call_events_total", &[("event", event), ("outcome", outcome)], count);
    }
    text.family("whatsapp_calls_total", "counter", "Calls that came by Meta's webhook, by the name of their number.");
    for (number, count) in &meta.numbers {
        text.sample("whatsapp_calls_total", &[("number", number)], count);
    }
    let help = "Call events of Meta's webhook that lacked what they must have.";
    text.single("whatsapp_unusable_events_total", "counter", help, meta.unusable);
    text.family("whatsapp_graph_requests_total", "counter", "Requests to Meta's Graph API, by what came of them.");
    for ((action, outcome), count) in &meta.requests {
        text.sample("whatsapp_graph_requests_total", &[("action", action), ("outcome", outcome)], count);
    }
    text.single("whatsapp_calls_alive", "gauge", "Calls that Meta may believe alive.", meta.alive);
    let help = "Calls that an earlier process had left alive at Meta, ended at the start.";
    text.single("whatsapp_orphans_total", "counter", help, meta.orphans);
    let help = "Calls of whose end Meta could not be told.";
    text.single("whatsapp_given_up_total", "counter", help, meta.given_up);
    text.single("whatsapp_forward_waiting", "gauge", "Webhooks that wait to be passed on.", meta.forward_waiting);
    text.family("whatsapp_forwarded_total", "counter", "Webhooks passed on, by what came of them.");
    for (outcome, count) in
        [("taken", meta.forwarded), ("given_up", meta.forward_given_up), ("nobody", meta.not_forwarded)]
    {
        text.sample("whatsapp_forwarded_total", &[("outcome", outcome)], count);
    }
}
