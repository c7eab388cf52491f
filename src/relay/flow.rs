//! Sequence numbers of one stream: what is missing, what came again, what came late.
//!
//! Memory is fixed: of the newest numbers it is known which came, of older ones only how many.

/// Numbers behind the newest of which it is known whether they came: twenty seconds of audio. Nothing older is believed
/// by SRTP anyway.
const WINDOW: u64 = 1024;

/// One stream's numbers.
#[derive(Clone, Debug)]
pub(super) struct Flow {
    /// Extended numbers, begun one round above zero so that what was sent before the first packet has a place.
    first: u64,
    newest: u64,
    received: u64,
    late: u64,
    /// Which of the newest came; a number's place is its remainder.
    seen: [u64; WINDOW as usize / 64],
}

impl Flow {
    /// A stream that begins with this number, which came.
    pub(super) fn begin(seq: u16) -> Self {
        let first = 0x1_0000 + u64::from(seq);
        let mut flow = Self { first, newest: first, received: 1, late: 0, seen: [0; WINDOW as usize / 64] };
        flow.mark(first);
        flow
    }

    /// Whether this number is known to have come.
    pub(super) fn has(&self, seq: u16) -> bool {
        let number = self.extend(seq);
        number <= self.newest && self.newest - number < WINDOW && self.seen[Self::word(number)] & Self::bit(number) != 0
    }

    /// Takes a number that has not come before.
    pub(super) fn take(&mut self, seq: u16) {
        let number = self.extend(seq);
        if number > self.newest {
            for skipped in (self.newest + 1..=number).rev().take(WINDOW as usize) {
                self.seen[Self::word(skipped)] &= !Self::bit(skipped);
            }
            self.newest = number;
        } else {
            self.late += 1;
            self.first = self.first.min(number);
        }
        if self.newest - number < WINDOW {
            self.mark(number);
        }
        self.received += 1;
    }

    /// Numbers between the first and the newest that did not come.
    pub(super) fn lost(&self) -> u64 {
        (self.newest - self.first + 1).saturating_sub(self.received)
    }

    /// Numbers that came behind a newer one.
    pub(super) fn late(&self) -> u64 {
        self.late
    }

    fn mark(&mut self, number: u64) {
        self.seen[Self::word(number)] |= Self::bit(number);
    }

    /// The number nearest to the newest.
    fn extend(&self, seq: u16) -> u64 {
        self.newest.saturating_add_signed(i64::from(seq.wrapping_sub(self.newest as u16) as i16))
    }

    fn word(number: u64) -> usize {
        (number % WINDOW / 64) as usize
    }

    fn bit(number: u64) -> u64 {
        1 << (number % 64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flow(numbers: &[u16]) -> Flow {
        let mut flow = Flow::begin(numbers[0]);
        numbers[1..].iter().for_each(|seq| flow.take(*seq));
        flow
    }

    #[test]
    fn a_stream_in_order_misses_nothing_across_the_end_of_the_numbers() {
        let flow = flow(&[65_533, 65_534, 65_535, 0, 1]);
        assert_eq!((flow.lost(), flow.late()), (0, 0));
        assert!(flow.has(65_533) && flow.has(0) && !flow.has(2) && !flow.has(65_532));
    }

    #[test]
    fn a_gap_is_lost_until_it_comes_late() {
        let mut flow = flow(&[10, 11, 14]);
        assert_eq!((flow.lost(), flow.late(), flow.has(12)), (2, 0, false));
        flow.take(12);
        assert_eq!((flow.lost(), flow.late(), flow.has(12)), (1, 1, true));
        flow.take(9);
        assert_eq!((flow.lost(), flow.late()), (1, 2), "sent before the first that came");
    }

    #[test]
    fn numbers_a_window_apart_are_not_taken_for_each_other() {
        let mut flow = flow(&[100]);
        flow.take(100 + WINDOW as u16);
        assert!(!flow.has(100) && !flow.has(101) && flow.has(100 + WINDOW as u16));
        flow.take(20_000);
        assert!(!flow.has(100 + WINDOW as u16) && flow.has(20_000));
        assert_eq!(flow.lost(), 20_000 - 100 + 1 - 3);
        let mut flow = self::flow(&[100, 101]);
        flow.take(1_130);
        assert!(!flow.has(101 + WINDOW as u16), "the place of 101 was cleared on the way");
    }
}
