//! Digits of the caller's keypad, gathered into one text.

use std::time::{Duration, Instant};

use crate::io::Deadline;

/// A pause this long ends an entry: people take less between two keys of one number.
pub(super) const PAUSE: Duration = Duration::from_millis(1500);
/// Longest entry, in digits: a card number is 19. What follows begins a new one.
const DIGITS_MAX: usize = 32;

#[derive(Debug, Default)]
pub(super) struct Keypad {
    digits: String,
    due: Option<Instant>,
}

impl Keypad {
    /// Takes a key: `0` to `9`, `*`, `#`, `A` to `D`; others are ignored.
    pub(super) fn press(&mut self, now: Instant, key: char) {
        if matches!(key, '0'..='9' | '*' | '#' | 'A'..='D') && self.digits.len() < DIGITS_MAX {
            self.digits.push(key);
            let complete = key == '#' || self.digits.len() == DIGITS_MAX;
            self.due = Some(if complete { now } else { now + PAUSE });
        }
    }

    /// The entry, when it is complete.
    pub(super) fn take(&mut self, now: Instant) -> Option<String> {
        self.due.take_if(|due| now >= *due).map(|_| std::mem::take(&mut self.digits))
    }

    pub(super) fn deadline(&self) -> Deadline {
        self.due.map_or(Deadline::NEVER, |at| Deadline::at(at, "keypad pause"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_ends_with_a_pause_a_hash_or_its_bound() {
        let start = Instant::now();
        let ms = |ms| start + Duration::from_millis(ms);
        let mut keypad = Keypad::default();
        keypad.press(ms(0), '1');
        keypad.press(ms(1400), '2');
        keypad.press(ms(1500), 'x');
        assert_eq!(keypad.take(ms(2899)), None);
        assert_eq!(keypad.take(ms(2900)), Some("12".into()));
        assert_eq!((keypad.take(ms(9000)), keypad.deadline()), (None, Deadline::NEVER));

        keypad.press(ms(9000), '7');
        keypad.press(ms(9000), '#');
        assert_eq!(keypad.take(ms(9000)), Some("7#".into()));

        (0..40).for_each(|_| keypad.press(ms(10_000), '5'));
        assert_eq!(keypad.take(ms(10_000)), Some("5".repeat(DIGITS_MAX)));
    }
}
