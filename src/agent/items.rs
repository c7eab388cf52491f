//! The model's items that carry audio: small numbers for their names, and how much of each was received.

use std::collections::VecDeque;

use super::ItemId;
use crate::realtime::SAMPLES_PER_MS;

/// Items remembered. A response has one or a few, and only those whose audio may still be waiting to be played matter.
pub(super) const ITEMS_MAX: usize = 32;
/// Longest name of an item, response or call, in bytes. The service's are about 25.
pub(super) const NAME_BYTES_MAX: usize = 128;

#[derive(Debug)]
pub(super) struct Item {
    pub(super) id: ItemId,
    pub(super) name: Box<str>,
    /// The response it belongs to.
    pub(super) response: Box<str>,
    /// Samples received.
    pub(super) samples: u64,
    /// Half a sample, left over by the last delta.
    pub(super) odd: Option<u8>,
    /// Whether what still comes is dropped.
    pub(super) silenced: bool,
    /// Whether the model said that it is complete.
    pub(super) done: bool,
    /// Whether the model was told how much was heard.
    pub(super) truncated: bool,
}

impl Item {
    pub(super) fn received_ms(&self) -> u32 {
        u32::try_from(self.samples / SAMPLES_PER_MS as u64).unwrap_or(u32::MAX)
    }
}

#[derive(Debug, Default)]
pub(super) struct Items {
    /// The newest last.
    items: VecDeque<Item>,
    named: u32,
}

impl Items {
    /// The item of this name, new or known; `None` for a name that is empty or too long.
    pub(super) fn enter(&mut self, name: &str, response: &str) -> Option<&mut Item> {
        if let Some(index) = self.items.iter().rposition(|item| &*item.name == name) {
            return self.items.get_mut(index);
        }
        if name.is_empty() || name.len() > NAME_BYTES_MAX || response.len() > NAME_BYTES_MAX {
            return None;
        }
        if self.items.len() == ITEMS_MAX {
            self.items.pop_front();
        }
        let item = Item {
            id: ItemId(self.named),
            name: name.into(),
            response: response.into(),
            samples: 0,
            odd: None,
            silenced: false,
            done: false,
            truncated: false,
        };
        self.named = self.named.wrapping_add(1);
        self.items.push_back(item);
        self.items.back_mut()
    }

    pub(super) fn by_name(&mut self, name: &str) -> Option<&mut Item> {
        self.items.iter_mut().rev().find(|item| &*item.name == name)
    }

    pub(super) fn by_id(&mut self, id: ItemId) -> Option<&mut Item> {
        self.items.iter_mut().rev().find(|item| item.id == id)
    }

    /// Nothing more is taken for any item known now.
    pub(super) fn silence_all(&mut self) {
        self.items.iter_mut().for_each(|item| item.silenced = true);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_numbers_and_the_oldest_is_forgotten() {
        let mut items = Items::default();
        let first = items.enter("item_0", "r").unwrap().id;
        assert_eq!(items.enter("item_0", "r").unwrap().id, first);
        for index in 1..=ITEMS_MAX {
            items.enter(&format!("item_{index}"), "r").unwrap();
        }
        assert!(items.by_id(first).is_none() && items.by_name("item_0").is_none());
        assert_ne!(items.enter("item_0", "r").unwrap().id, first, "a number is not used twice");
        assert!(items.enter("", "r").is_none());
        assert!(items.enter(&"x".repeat(NAME_BYTES_MAX + 1), "r").is_none());
        assert!(items.enter("x", &"r".repeat(NAME_BYTES_MAX + 1)).is_none());
    }
}
