//! A table of things with dense slots and generations: a key of a removed thing misses instead of hitting a stranger.

/// Values by `(slot, generation)`. Slots are used again; their generation then differs.
#[derive(Debug)]
pub struct Slab<T> {
    entries: Vec<(u32, Option<T>)>,
    free: Vec<u32>,
}

impl<T> Slab<T> {
    /// An empty table.
    pub const fn new() -> Self {
        Self { entries: Vec::new(), free: Vec::new() }
    }

    /// How many values it holds.
    pub fn len(&self) -> usize {
        self.entries.len() - self.free.len()
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Takes a value and returns its slot and generation.
    pub fn insert(&mut self, value: T) -> (u32, u32) {
        if let Some(slot) = self.free.pop() {
            let entry = &mut self.entries[slot as usize];
            entry.0 = entry.0.wrapping_add(1);
            entry.1 = Some(value);
            return (slot, entry.0);
        }
        let slot = u32::try_from(self.entries.len()).expect("tables are bounded far below 2^32 by their owners");
        self.entries.push((0, Some(value)));
        (slot, 0)
    }

    /// The value under a key.
    pub fn get(&self, slot: u32, generation: u32) -> Option<&T> {
        self.entries.get(slot as usize).filter(|entry| entry.0 == generation)?.1.as_ref()
    }

    /// The value under a key, to be changed.
    pub fn get_mut(&mut self, slot: u32, generation: u32) -> Option<&mut T> {
        self.entries.get_mut(slot as usize).filter(|entry| entry.0 == generation)?.1.as_mut()
    }

    /// The generation of the value in a slot.
    pub fn generation(&self, slot: u32) -> Option<u32> {
        self.entries.get(slot as usize).filter(|entry| entry.1.is_some()).map(|entry| entry.0)
    }

    /// Removes the value under a key; its slot may be used again.
    pub fn remove(&mut self, slot: u32, generation: u32) -> Option<T> {
        let entry = self.entries.get_mut(slot as usize).filter(|entry| entry.0 == generation)?;
        let value = entry.1.take()?;
        self.free.push(slot);
        Some(value)
    }

    /// All values with their slots and generations.
    pub fn iter(&self) -> impl Iterator<Item = (u32, u32, &T)> {
        self.entries
            .iter()
            .enumerate()
            .filter_map(|(slot, (generation, value))| value.as_ref().map(|value| (slot as u32, *generation, value)))
    }

    /// All values, to be changed.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.entries.iter_mut().filter_map(|(_, value)| value.as_mut())
    }
}

impl<T> Default for Slab<T> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_old_key_misses_after_its_slot_is_used_again() {
        let mut slab = Slab::new();
        let (slot, old) = slab.insert("a");
        assert_eq!(slab.remove(slot, old), Some("a"));
        assert_eq!(slab.remove(slot, old), None, "removing twice does not free the slot twice");
        let (again, new) = slab.insert("b");
        assert_eq!(again, slot);
        assert_eq!((slab.get(slot, old), slab.get(slot, new)), (None, Some(&"b")));
        assert_eq!((slab.len(), slab.iter().count()), (1, 1));
    }
}
