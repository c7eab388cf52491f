//! What the caller says: frames on a 20 ms beat, pressed keys, and what the network does to the packets.
//!
//! Times come in and packets go out; this file must not know of DTLS, sockets or calls.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::support::crypto::{PT_OPUS, PT_TELEPHONE_EVENT};
use crate::support::rng::Rng;

/// The beat.
pub(crate) const FRAME: Duration = Duration::from_millis(20);

/// RTP time of one beat at 48 kHz.
const FRAME_TICKS: u32 = 960;

/// Duration of one beat in the units of telephone-event/8000.
const FRAME_EVENT_UNITS: u16 = 160;

/// Keys that wait to be pressed: more than a card number has digits.
const KEYS_MAX: usize = 32;

/// How often the end of an event is sent (RFC 4733 section 2.5.1.4).
const KEY_ENDS: usize = 3;

/// The end bit and the volume (-10 dBm0) in the second octet of an event.
const KEY_END: u8 = 0x80;
const KEY_VOLUME: u8 = 0x0a;

/// One beat: an Opus payload, or nothing on the wire while RTP time goes on (DTX).
pub(crate) type Beat = Option<Arc<[u8]>>;

/// What the caller says.
pub(crate) struct Script {
    /// One entry for each 20 ms.
    pub(crate) beats: Vec<Beat>,
    /// Starts again at the end, for ever.
    pub(crate) repeat: bool,
    /// What becomes of each packet; asked with the number of the packet within this script, from 0.
    pub(crate) fate: Box<dyn FnMut(u64) -> Fate + Send>,
}

/// What the network does to a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It arrives.
    Arrives,
    /// It is lost.
    Lost,
    /// It arrives twice.
    Doubled,
    /// It arrives this much later, behind packets that were sent after it.
    Late(Duration),
}

impl Script {
    /// These frames once, on a perfect network.
    pub(crate) fn once(frames: impl IntoIterator<Item = Arc<[u8]>>) -> Self {
        Self { beats: frames.into_iter().map(Some).collect(), repeat: false, fate: Box::new(|_| Fate::Arrives) }
    }

    /// These frames again and again, on a perfect network.
    pub(crate) fn repeated(frames: impl IntoIterator<Item = Arc<[u8]>>) -> Self {
        Self { repeat: true, ..Self::once(frames) }
    }

    /// Nothing at all: a caller whose microphone is off.
    pub(crate) fn silent() -> Self {
        Self::once([])
    }

    /// The same frames on a network that does this to them.
    pub(crate) fn with_fate(self, fate: impl FnMut(u64) -> Fate + Send + 'static) -> Self {
        Self { fate: Box::new(fate), ..self }
    }

    fn beat(&self, position: usize) -> Option<&Beat> {
        if self.repeat && !self.beats.is_empty() {
            return self.beats.get(position % self.beats.len());
        }
        self.beats.get(position)
    }
}

impl fmt::Debug for Script {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Script").field("beats", &self.beats.len()).field("repeat", &self.repeat).finish_non_exhaustive()
    }
}

/// One RTP packet to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Packet {
    pub(super) pt: u8,
    pub(super) seq: u64,
    pub(super) timestamp: u32,
    pub(super) marker: bool,
    pub(super) payload: Arc<[u8]>,
    pub(super) fate: Fate,
}

/// Puts a script on the beat. Silent until it is started.
#[derive(Debug)]
pub(super) struct Player {
    script: Script,
    /// The next entry of the script.
    position: usize,
    /// Packets made of this script.
    packets: u64,
    keys: VecDeque<Key>,
    pressing: Option<Pressed>,
    /// The instant of beat 0.
    started: Option<Instant>,
    /// The next beat.
    beat: u32,
    seq: u64,
    timestamp_base: u32,
    /// The next packet follows a silence: it carries the marker.
    talkspurt: bool,
}

#[derive(Clone, Copy, Debug)]
struct Key {
    event: u8,
    beats: u16,
}

#[derive(Clone, Copy, Debug)]
struct Pressed {
    key: Key,
    timestamp: u32,
    elapsed: u16,
}

impl Player {
    pub(super) fn new(script: Script, rng: &mut Rng) -> Self {
        Self {
            script,
            position: 0,
            packets: 0,
            keys: VecDeque::new(),
            pressing: None,
            started: None,
            beat: 0,
            // The upper half of the first 16 bits: a rollover comes within eleven minutes, and SRTP may count on the
            // first packet's being in the first round.
            seq: 0x8000 + rng.below(0x7fff) as u64,
            timestamp_base: rng.next_u32(),
            talkspurt: true,
        }
    }

    /// Begins, if it has not begun.
    pub(super) fn start(&mut self, now: Instant) {
        self.started.get_or_insert(now);
    }

    /// Replaces what is left of the script.
    pub(super) fn play(&mut self, now: Instant, script: Script) {
        self.skip_to(now);
        self.script = script;
        self.position = 0;
        self.packets = 0;
    }

    /// Presses a key for this long (at least one beat), when those before it are done.
    pub(super) fn press(&mut self, now: Instant, event: u8, duration: Duration) {
        self.skip_to(now);
        let beats = (duration.as_millis() / FRAME.as_millis()).clamp(1, 300);
        assert!(self.keys.len() < KEYS_MAX, "no test presses so many keys ahead");
        self.keys.push_back(Key { event, beats: beats as u16 });
    }

    /// When the next beat is due; `None` while there is nothing to say.
    pub(super) fn due(&self) -> Option<Instant> {
        let anything = self.pressing.is_some() || !self.keys.is_empty() || self.script.beat(self.position).is_some();
        self.started.filter(|_| anything).map(|started| started + FRAME * self.beat)
    }

    /// The packets of the next beat, if it is due by now: one, none in a gap, three at the end of a key.
    pub(super) fn poll(&mut self, now: Instant) -> Option<Vec<Packet>> {
        self.due().filter(|due| *due <= now)?;
        let timestamp = self.timestamp_base.wrapping_add(self.beat.wrapping_mul(FRAME_TICKS));
        self.beat += 1;
        if self.pressing.is_none() {
            self.pressing = self.keys.pop_front().map(|key| Pressed { key, timestamp, elapsed: 0 });
        }
        let Some(mut pressed) = self.pressing.take() else {
            let beat = self.script.beat(self.position).cloned().flatten();
            self.position += 1;
            let Some(payload) = beat else {
                self.talkspurt = true;
                return Some(Vec::new());
            };
            let marker = std::mem::take(&mut self.talkspurt);
            return Some(vec![self.packet(PT_OPUS, timestamp, marker, payload)]);
        };
        // The key takes the place of the audio; its timestamp stays that of its beginning.
        let marker = pressed.elapsed == 0;
        pressed.elapsed += 1;
        let end = pressed.elapsed == pressed.key.beats;
        let [high, low] = pressed.elapsed.saturating_mul(FRAME_EVENT_UNITS).to_be_bytes();
        let flags = KEY_VOLUME | if end { KEY_END } else { 0 };
        let payload: Arc<[u8]> = Arc::from([pressed.key.event, flags, high, low]);
        let copies = if end { KEY_ENDS } else { 1 };
        let packets = (0..copies)
            .map(|copy| self.packet(PT_TELEPHONE_EVENT, pressed.timestamp, marker && copy == 0, payload.clone()));
        let packets = packets.collect();
        self.pressing = Some(pressed).filter(|_| !end);
        Some(packets)
    }

    fn packet(&mut self, pt: u8, timestamp: u32, marker: bool, payload: Arc<[u8]>) -> Packet {
        let fate = (self.script.fate)(self.packets);
        self.packets += 1;
        self.seq += 1;
        Packet { pt, seq: self.seq, timestamp, marker, payload, fate }
    }

    /// After a pause: the beat that comes next, so that RTP time has gone on meanwhile.
    fn skip_to(&mut self, now: Instant) {
        if self.due().is_some() {
            return;
        }
        if let Some(started) = self.started {
            let elapsed = now.saturating_duration_since(started).as_nanos().div_ceil(FRAME.as_nanos());
            let beat = u32::try_from(elapsed).expect("no test runs for a year");
            self.talkspurt |= beat > self.beat;
            self.beat = self.beat.max(beat);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(byte: u8) -> Arc<[u8]> {
        Arc::from([byte])
    }

    fn player(script: Script) -> Player {
        Player::new(script, &mut Rng::new(1))
    }

    /// Plays until `until`, a beat at a time.
    fn run(player: &mut Player, start: Instant, until: Duration) -> Vec<(u128, Packet)> {
        let mut packets = Vec::new();
        while let Some(due) = player.due().filter(|due| *due - start <= until) {
            if due > start {
                assert_eq!(player.poll(start.max(due.checked_sub(FRAME / 2).unwrap())), None, "never early");
            }
            let beat = player.poll(due).expect("it is due");
            packets.extend(beat.into_iter().map(|packet| ((due - start).as_millis(), packet)));
        }
        packets
    }

    #[test]
    fn nothing_is_played_before_the_start() {
        let mut player = player(Script::repeated([frame(1)]));
        assert_eq!(player.due(), None);
        assert_eq!(player.poll(Instant::now() + Duration::from_secs(9)), None);
    }

    #[test]
    fn frames_leave_on_the_beat_with_steady_numbers_and_a_gap_advances_time_alone() {
        let now = Instant::now();
        let beats = vec![Some(frame(1)), Some(frame(2)), None, None, Some(frame(3))];
        let mut player = player(Script { beats, ..Script::silent() });
        player.start(now);
        player.start(now + FRAME); // the first start counts
        let packets = run(&mut player, now, Duration::from_secs(1));
        let (seq, timestamp) = (packets[0].1.seq, packets[0].1.timestamp);
        let seen: Vec<_> = packets
            .iter()
            .map(|(at, p)| (*at, p.payload[0], p.seq - seq, p.timestamp.wrapping_sub(timestamp), p.marker))
            .collect();
        assert_eq!(seen, [(0, 1, 0, 0, true), (20, 2, 1, 960, false), (80, 3, 2, 3840, true)]);
        assert!((0x8000..0x1_0000).contains(&seq));
    }

    #[test]
    fn a_second_script_goes_on_with_the_numbers_and_the_clock_of_the_first() {
        let now = Instant::now();
        let mut player = player(Script::once([frame(1)]));
        player.start(now);
        let first = run(&mut player, now, Duration::from_secs(1)).remove(0).1;
        assert_eq!(player.due(), None);
        player.play(now + Duration::from_millis(991), Script::once([frame(2)]));
        let (at, second) = run(&mut player, now, Duration::from_secs(2)).remove(0);
        assert_eq!((at, second.seq - first.seq, second.marker), (1000, 1, true));
        assert_eq!(second.timestamp.wrapping_sub(first.timestamp), 50 * 960);
    }

    #[test]
    fn a_key_takes_the_place_of_the_audio_and_its_end_comes_three_times() {
        let now = Instant::now();
        let mut player = player(Script::repeated([frame(9)]));
        player.start(now);
        player.press(now, 5, Duration::from_millis(60));
        let packets = run(&mut player, now, Duration::from_millis(60));
        let seen: Vec<_> = packets.iter().map(|(at, p)| (*at, p.pt, p.marker, p.payload.to_vec())).collect();
        let tele = PT_TELEPHONE_EVENT;
        let end = vec![5, 0x8a, 1, 0xe0];
        let expected = [
            (0, tele, true, vec![5, 10, 0, 160]),
            (20, tele, false, vec![5, 10, 1, 64]),
            (40, tele, false, end.clone()),
            (40, tele, false, end.clone()),
            (40, tele, false, end),
            (60, PT_OPUS, true, vec![9]),
        ];
        assert_eq!(seen, expected);
        assert!(packets.windows(2).all(|pair| pair[1].1.seq == pair[0].1.seq + 1), "one sequence for both");
        assert!(packets[..5].iter().all(|(_, p)| p.timestamp == packets[0].1.timestamp), "its beginning's time");
    }

    #[test]
    fn the_fate_is_asked_for_each_packet_by_number() {
        let now = Instant::now();
        let fate = |packet| if packet == 1 { Fate::Lost } else { Fate::Arrives };
        let mut player = player(Script::once([frame(1), frame(2), frame(3)]).with_fate(fate));
        player.start(now);
        let fates: Vec<_> = run(&mut player, now, Duration::from_secs(1)).into_iter().map(|(_, p)| p.fate).collect();
        assert_eq!(fates, [Fate::Arrives, Fate::Lost, Fate::Arrives]);
    }
}
