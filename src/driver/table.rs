//! Values by key: dense slots, each with the generation that owns it.
//!
//! A stale key misses. Taking a slot that is still owned is a machine's broken promise and panics: going on would hand
//! one owner's packets to another.

use std::marker::PhantomData;

use super::tag::SLOTS_MAX;
use crate::io::{SocketKey, StreamKey};

/// A key of [`crate::io`]: a slot and its generation.
pub(super) trait Key: Copy {
    fn parts(self) -> (u32, u32);
    fn of(slot: u32, generation: u32) -> Self;
}

impl Key for SocketKey {
    fn parts(self) -> (u32, u32) {
        (self.slot, self.generation)
    }

    fn of(slot: u32, generation: u32) -> Self {
        Self { slot, generation }
    }
}

impl Key for StreamKey {
    fn parts(self) -> (u32, u32) {
        (self.slot, self.generation)
    }

    fn of(slot: u32, generation: u32) -> Self {
        Self { slot, generation }
    }
}

/// Values by key.
pub(super) struct Table<K, T> {
    slots: Vec<Option<(u32, T)>>,
    live: usize,
    keys: PhantomData<K>,
}

impl<K: Key, T> Table<K, T> {
    pub(super) const fn new() -> Self {
        Self { slots: Vec::new(), live: 0, keys: PhantomData }
    }

    /// Puts a value under a key whose slot is free.
    pub(super) fn insert(&mut self, key: K, value: T) {
        let (slot, generation) = key.parts();
        assert!(slot < SLOTS_MAX, "machines number their slots densely");
        let slot = slot as usize;
        if slot >= self.slots.len() {
            self.slots.resize_with(slot + 1, || None);
        }
        let place = &mut self.slots[slot];
        assert!(place.is_none(), "a slot is used again only after its closing was confirmed");
        *place = Some((generation, value));
        self.live += 1;
    }

    /// The value under this key; `None` for a key of another generation.
    pub(super) fn get(&mut self, key: K) -> Option<&mut T> {
        let (slot, generation) = key.parts();
        match self.slots.get_mut(slot as usize)? {
            Some((owner, value)) if *owner == generation => Some(value),
            _ => None,
        }
    }

    /// Takes the value under this key out; the slot is free then.
    pub(super) fn remove(&mut self, key: K) -> Option<T> {
        self.get(key)?;
        let (slot, _) = key.parts();
        self.live -= 1;
        self.slots[slot as usize].take().map(|(_, value)| value)
    }

    /// Whether no slot is owned.
    pub(super) const fn is_empty(&self) -> bool {
        self.live == 0
    }

    /// All keys in use, by slot.
    pub(super) fn keys(&self) -> Vec<K> {
        let owned = |(slot, place): (usize, &Option<(u32, T)>)| place.as_ref().map(|p| K::of(slot as u32, p.0));
        self.slots.iter().enumerate().filter_map(owned).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(slot: u32, generation: u32) -> StreamKey {
        StreamKey { slot, generation }
    }

    #[test]
    fn a_stale_key_misses_the_slots_next_owner() {
        let mut table = Table::new();
        table.insert(key(3, 1), "old");
        assert_eq!(table.remove(key(3, 1)), Some("old"));
        table.insert(key(3, 2), "new");
        assert!(table.get(key(3, 1)).is_none() && table.remove(key(3, 1)).is_none());
        assert_eq!(table.get(key(3, 2)), Some(&mut "new"));
        assert_eq!(table.keys(), [key(3, 2)]);
        assert!(!table.is_empty());
    }

    #[test]
    #[should_panic(expected = "used again only after")]
    fn taking_an_owned_slot_panics() {
        let mut table = Table::new();
        table.insert(key(0, 1), ());
        table.insert(key(0, 2), ());
    }
}
