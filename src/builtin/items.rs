//! The conversation: which items there are, in which order, and how much audio of ours each holds.
//!
//! Content is not kept: nothing here would read it.

use serde_json::{Value, json};

use super::events::{Events, Fault, short};
use super::settings::invalid;

/// Items remembered. An hour of talk is some hundreds; of more, the oldest are forgotten.
const ITEMS_MAX: usize = 1_024;

/// Longest id a client may give an item, in bytes, as the real service has it.
const ID_BYTES_MAX: usize = 32;

#[derive(Debug)]
struct Item {
    id: String,
    /// Audio that was sent to the client, in milliseconds; `None` for items that are not ours.
    spoken_ms: Option<u64>,
}

/// The items of one conversation.
#[derive(Debug, Default)]
pub(super) struct Items(Vec<Item>);

impl Items {
    /// The id of the last item, as events show it.
    pub(super) fn last(&self) -> Value {
        self.0.last().map_or(Value::Null, |item| item.id.as_str().into())
    }

    /// Adds an item at the end. `spoken` says that it holds audio of ours.
    pub(super) fn add(&mut self, id: &str, spoken: bool) {
        self.insert(self.0.len(), id, spoken);
    }

    fn insert(&mut self, at: usize, id: &str, spoken: bool) {
        self.0.insert(at, Item { id: id.to_owned(), spoken_ms: spoken.then_some(0) });
        if self.0.len() > ITEMS_MAX {
            self.0.remove(0);
        }
    }

    /// How much audio of an item was sent by now.
    pub(super) fn set_spoken_ms(&mut self, id: &str, ms: u64) {
        // From the end: it is the item being spoken.
        if let Some(item) = self.0.iter_mut().rev().find(|item| item.id == id) {
            item.spoken_ms = Some(ms);
        }
    }

    fn position(&self, id: &str) -> Option<usize> {
        self.0.iter().position(|item| item.id == id)
    }

    /// Serves `conversation.item.create`.
    pub(super) fn create(&mut self, event: &Value, events: &mut Events) -> Result<(), Fault> {
        let item = event.get("item").ok_or_else(|| Fault::missing("item"))?;
        check_item(item)?;
        let at = match event.get("previous_item_id").filter(|id| !id.is_null()) {
            None => self.0.len(),
            Some(root) if root == "root" => 0,
            Some(id) => {
                let at = id.as_str().and_then(|id| self.position(id));
                at.ok_or_else(|| invalid("previous_item_id", "names no item of this conversation"))? + 1
            }
        };
        let id = match item.get("id").filter(|id| !id.is_null()) {
            None => events.id("item"),
            Some(id) => {
                let id = id.as_str().filter(|id| !id.is_empty() && id.len() <= ID_BYTES_MAX);
                let id =
                    id.ok_or_else(|| invalid("item.id", &format!("must be a string of 1 to {ID_BYTES_MAX} bytes")))?;
                if self.position(id).is_some() {
                    let message = format!("Error adding item: an item with id '{id}' exists already.");
                    return Err(Fault::of("item.id", "item_create_duplicate_item_id", message));
                }
                id.to_owned()
            }
        };
        let previous = at.checked_sub(1).map(|before| self.0[before].id.clone());
        self.insert(at, &id, false);
        let mut item = item.clone();
        item["id"] = id.into();
        item["object"] = "realtime.item".into();
        item["status"] = "completed".into();
        announce(&item, &previous.into(), events);
        Ok(())
    }

    /// Serves `conversation.item.delete`.
    pub(super) fn delete(&mut self, event: &Value, events: &mut Events) -> Result<(), Fault> {
        let (at, id) = self.named(event, "item_delete_invalid_item_id", "deleting")?;
        self.0.remove(at);
        events.push("conversation.item.deleted", &json!({ "item_id": id }));
        Ok(())
    }

    /// Serves `conversation.item.truncate`. An end beyond what was sent is a fault, and truncates there all the same:
    /// so does the real service.
    pub(super) fn truncate(&mut self, event: &Value, events: &mut Events) -> Result<(), Fault> {
        let (at, id) = self.named(event, "item_truncate_invalid_item_id", "truncating")?;
        match event.get("content_index") {
            None => return Err(Fault::missing("content_index")),
            Some(index) if *index == 0 => {}
            Some(_) => return Err(invalid("content_index", "must be 0: the one part of an item that has audio")),
        }
        let end = event.get("audio_end_ms").ok_or_else(|| Fault::missing("audio_end_ms"))?;
        let end = end.as_u64().ok_or_else(|| invalid("audio_end_ms", "must be an integer, zero or more"))?;
        let Some(spoken) = self.0[at].spoken_ms.filter(|spoken| *spoken > 0 && end > 0) else {
            let message = "Only model output audio messages can be truncated.";
            return Err(Fault::new("unsupported_content_type", message));
        };
        let kept = end.min(spoken);
        self.0[at].spoken_ms = Some(kept);
        let fields = json!({ "item_id": id, "content_index": 0, "audio_end_ms": kept });
        events.push("conversation.item.truncated", &fields);
        if end > spoken {
            let message = format!("Audio content of {spoken}ms is already shorter than {end}ms");
            return Err(Fault::of("audio_end_ms", "invalid_value", message));
        }
        Ok(())
    }

    fn named(&self, event: &Value, code: &'static str, doing: &str) -> Result<(usize, String), Fault> {
        let id = event.get("item_id").ok_or_else(|| Fault::missing("item_id"))?;
        let id = id.as_str().ok_or_else(|| invalid("item_id", "must be a string"))?;
        let at = self.position(id).ok_or_else(|| {
            let message = format!("Error {doing} item: the item with id '{}' does not exist.", short(id));
            Fault::of("item_id", code, message)
        })?;
        Ok((at, id.to_owned()))
    }
}

/// Tells of an item that is there and complete.
pub(super) fn announce(item: &Value, previous: &Value, events: &mut Events) {
    let fields = json!({ "previous_item_id": previous, "item": item });
    events.push("conversation.item.added", &fields);
    events.push("conversation.item.done", &fields);
}

fn check_item(item: &Value) -> Result<(), Fault> {
    let strings = |names: &[&str]| match names.iter().find(|name| !item[**name].is_string()) {
        None => Ok(()),
        Some(name) => Err(Fault::missing(&format!("item.{name}"))),
    };
    match item["type"].as_str() {
        Some("message") => {
            if !matches!(item["role"].as_str(), Some("system" | "user" | "assistant")) {
                return Err(invalid("item.role", "must be 'system', 'user' or 'assistant'"));
            }
            let parts = item["content"].as_array().ok_or_else(|| Fault::missing("item.content"))?;
            match parts.iter().position(|part| !part["type"].is_string()) {
                None => Ok(()),
                Some(at) => Err(Fault::missing(&format!("item.content[{at}].type"))),
            }
        }
        Some("function_call") => strings(&["name", "arguments"]),
        Some("function_call_output") => strings(&["call_id", "output"]),
        Some(_) => Err(invalid("item.type", "must be 'message', 'function_call' or 'function_call_output'")),
        None => Err(Fault::missing("item.type")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(events: &mut Events) -> Vec<Value> {
        events.drain().map(|event| serde_json::from_str(&event).unwrap()).collect()
    }

    #[test]
    fn items_are_created_in_order_and_deleted() {
        let (mut items, mut events) = (Items::default(), Events::new("c".into()));
        let message = |id: &str| json!({ "id": id, "type": "message", "role": "user", "content": [{ "type": "input_text", "text": "hi" }] });
        items.create(&json!({ "item": message("b") }), &mut events).unwrap();
        items.create(&json!({ "item": message("a"), "previous_item_id": "root" }), &mut events).unwrap();
        items.create(&json!({ "item": message("c"), "previous_item_id": "b" }), &mut events).unwrap();
        let call = json!({ "type": "function_call_output", "call_id": "x", "output": "1" });
        items.create(&json!({ "item": call }), &mut events).unwrap();
        let events_said = said(&mut events);
        let order: Vec<_> = events_said.iter().map(|event| event["previous_item_id"].clone()).collect();
        assert_eq!(
            order,
            [Value::Null, Value::Null, Value::Null, Value::Null, json!("b"), json!("b"), json!("c"), json!("c")]
        );
        assert_eq!(events_said[0]["item"]["content"][0]["text"], "hi");
        assert_eq!(events_said[0]["item"]["status"], "completed");
        items.delete(&json!({ "item_id": "b" }), &mut events).unwrap();
        assert_eq!(
            items.delete(&json!({ "item_id": "b" }), &mut events).unwrap_err().code,
            "item_delete_invalid_item_id"
        );
    }

    #[test]
    fn truncation_keeps_what_was_sent_at_most() {
        let (mut items, mut events) = (Items::default(), Events::new("c".into()));
        items.add("ours", true);
        items.add("theirs", false);
        let mut truncate = |items: &mut Items, id: &str, end: Value| {
            items.truncate(&json!({ "item_id": id, "content_index": 0, "audio_end_ms": end }), &mut events)
        };
        let unsupported = "unsupported_content_type";
        assert_eq!(truncate(&mut items, "ours", json!(100)).unwrap_err().code, unsupported, "nothing sent yet");
        items.set_spoken_ms("ours", 1_000);
        assert_eq!(truncate(&mut items, "theirs", json!(100)).unwrap_err().code, unsupported);
        assert_eq!(truncate(&mut items, "ours", json!(0)).unwrap_err().code, unsupported);
        assert_eq!(truncate(&mut items, "ours", json!(1.5)).unwrap_err().code, "invalid_value");
        assert_eq!(truncate(&mut items, "none", json!(1)).unwrap_err().code, "item_truncate_invalid_item_id");
        let fault = truncate(&mut items, "ours", json!(1_500)).unwrap_err();
        assert_eq!(fault.message, "Audio content of 1000ms is already shorter than 1500ms");
        truncate(&mut items, "ours", json!(400)).unwrap();
        let ends: Vec<_> = said(&mut events).iter().map(|event| event["audio_end_ms"].clone()).collect();
        assert_eq!(ends, [1_000, 400]);
    }

    #[test]
    fn the_oldest_items_are_forgotten() {
        let mut items = Items::default();
        for n in 0..=ITEMS_MAX {
            items.add(&n.to_string(), false);
        }
        assert_eq!((items.0.len(), items.position("0"), items.position("1")), (ITEMS_MAX, None, Some(0)));
    }

    #[test]
    fn an_item_without_its_parts_is_refused_by_name() {
        for (item, param) in [
            (json!(1), "item.type"),
            (json!({ "type": "x" }), "item.type"),
            (json!({ "type": "message" }), "item.role"),
            (json!({ "type": "message", "role": "user" }), "item.content"),
            (json!({ "type": "message", "role": "user", "content": [1] }), "item.content[0].type"),
            (json!({ "type": "function_call_output", "call_id": "c" }), "item.output"),
            (json!({ "type": "function_call_output", "call_id": "c", "output": "o", "id": "" }), "item.id"),
        ] {
            let mut events = Events::new("c".into());
            let fault = Items::default().create(&json!({ "item": item }), &mut events).unwrap_err();
            assert_eq!(fault.param.as_deref(), Some(param));
        }
    }
}
