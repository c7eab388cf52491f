//! The lines of a journal: what is put and removed, each with a checksum. A line that is torn or damaged is known as such, and
//! costs no other one.

use std::collections::BTreeMap;

use aws_lc_rs::digest::{SHA256, digest};

/// Longest text of a line, in bytes: a call id, a phone number's id and a time are some 200.
pub(super) const TEXT_BYTES_MAX: usize = 1024;

/// Most lines alive at once: no machine has more media ports, and so no more calls.
pub(super) const LINES_MAX: usize = 65_536;

/// What a journal's file says.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Read {
    /// What was put and not removed.
    pub(super) alive: BTreeMap<u64, String>,
    /// Lines that were put and are removed, or were put twice.
    pub(super) spent: usize,
    /// Lines that are none.
    pub(super) damaged: usize,
    /// Lines beyond [`LINES_MAX`].
    pub(super) beyond: usize,
    /// The last line has no end: what is appended would become a part of it.
    pub(super) is_unended: bool,
}

impl Read {
    /// Whether the file holds nothing but what is alive, and can be appended to.
    pub(super) fn is_clean(&self) -> bool {
        self.spent + self.damaged + self.beyond == 0 && !self.is_unended
    }
}

/// A line that puts.
pub(super) fn put(key: u64, text: &str) -> String {
    sealed(&format!("+ {key} {text}"))
}

/// A line that removes.
pub(super) fn remove(key: u64) -> String {
    sealed(&format!("- {key}"))
}

/// Whether a text can be a line's.
pub(super) fn is_text(text: &str) -> bool {
    text.len() <= TEXT_BYTES_MAX && !text.contains(['\n', '\r'])
}

fn sealed(content: &str) -> String {
    format!("{} {content}\n", checksum(content))
}

/// The first eight bytes of its SHA-256: against accidents, and not against people.
fn checksum(content: &str) -> String {
    let whole = digest(&SHA256, content.as_bytes());
    let first = whole.as_ref().first_chunk().expect("it has 32 bytes");
    format!("{:016x}", u64::from_be_bytes(*first))
}

/// Reads a file. Any bytes are taken.
pub(super) fn read(bytes: &[u8]) -> Read {
    let is_unended = bytes.last().is_some_and(|byte| *byte != b'\n');
    let mut read = Read { is_unended, ..Read::default() };
    for line in bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        match parse(line) {
            Some(Line::Put(key, text)) => {
                if read.alive.len() >= LINES_MAX && !read.alive.contains_key(&key) {
                    read.beyond += 1;
                } else if read.alive.insert(key, text.to_owned()).is_some() {
                    read.spent += 1;
                }
            }
            Some(Line::Remove(key)) => {
                read.alive.remove(&key);
                read.spent += 1;
            }
            None => read.damaged += 1,
        }
    }
    read
}

enum Line<'a> {
    Put(u64, &'a str),
    Remove(u64),
}

fn parse(line: &[u8]) -> Option<Line<'_>> {
    let line = std::str::from_utf8(line).ok()?;
    let (sum, content) = line.split_once(' ')?;
    if checksum(content) != sum {
        return None;
    }
    if let Some(key) = content.strip_prefix("- ") {
        return Some(Line::Remove(key.parse().ok()?));
    }
    let (key, text) = content.strip_prefix("+ ")?.split_once(' ')?;
    is_text(text).then_some(Line::Put(key.parse().ok()?, text))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn alive(read: &Read) -> Vec<(u64, &str)> {
        read.alive.iter().map(|(key, text)| (*key, text.as_str())).collect()
    }

    #[test]
    fn what_is_put_and_not_removed_is_alive() {
        let file = [put(1, "one"), put(2, "two words"), remove(1), put(3, ""), put(2, "two again")].concat();
        let read = read(file.as_bytes());
        assert_eq!(alive(&read), [(2, "two again"), (3, "")]);
        assert_eq!((read.spent, read.damaged, read.is_clean()), (2, 0, false));
        assert!(super::read(put(1, "one").as_bytes()).is_clean());
        assert_eq!(super::read(b""), Read::default());
    }

    #[test]
    fn a_torn_line_costs_itself_alone_wherever_it_is_torn() {
        let (first, last) = (put(1, "one"), put(2, "two"));
        for kept in 1..last.len() - 1 {
            let file = [&first, &last[..kept]].concat();
            let read = read(file.as_bytes());
            assert_eq!((alive(&read), read.damaged), (vec![(1, "one")], 1), "{kept} bytes kept");
        }
        // Only its end is missing: then it is whole, and nothing may be appended to it.
        let read = read([first, last.trim_end().to_owned()].concat().as_bytes());
        assert_eq!((alive(&read), read.damaged, read.is_clean()), (vec![(1, "one"), (2, "two")], 0, false));
    }

    #[test]
    fn a_changed_byte_is_seen_wherever_it_is() {
        let line = put(7, "canary");
        for at in 0..line.len() - 1 {
            let mut bytes = line.clone().into_bytes();
            bytes[at] ^= 1;
            let read = read(&bytes);
            assert!(read.alive.is_empty() && read.damaged > 0, "{at}");
        }
    }

    #[test]
    fn no_bytes_make_it_panic_or_hold_more_than_its_bounds() {
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        for _ in 0..2_000 {
            let bytes: Vec<u8> = (0..200)
                .map(|_| {
                    state ^= state << 13;
                    state ^= state >> 7;
                    state ^= state << 17;
                    b"0123456789abcdef+- \n\xff"[(state >> 20) as usize % 21]
                })
                .collect();
            read(&bytes);
        }
        let long = put(1, &"x".repeat(TEXT_BYTES_MAX + 1));
        assert_eq!(read(long.as_bytes()).damaged, 1);
        let many: String = (0..=LINES_MAX as u64).map(|key| put(key, "x")).collect();
        let read = read(many.as_bytes());
        assert_eq!((read.alive.len(), read.beyond), (LINES_MAX, 1));
    }
}
