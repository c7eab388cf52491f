//! What the caller says: frames on a 20 ms beat, pressed keys, and what the network does to the packets.
//!
//! Times come in and packets go out; this file must not know of DTLS, sockets or calls.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::crypto::{PT_OPUS, PT_TELEPHONE_EVENT};
use super::rng::Rng;

/// The beat.
pub const FRAME: Duration = Duration::from_millis(20);

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
pub type Beat = Option<Arc<[u8]>>;

/// What the caller says.
pub struct Script {
    /// One entry for each 20 ms. Calls that say the same share it.
    pub beats: Arc<[Beat]>,
    /// Where in it the caller begins.
    pub first: usize,
    /// Starts again at the end, for ever.
    pub repeat: bool,
    /// Before every so many entries (counted from the start of `beats`) all that follows is sent this much later, its
    /// RTP time unmoved: a clock that falls behind in steps.
    pub lag: Option<(usize, Duration)>,
    /// What becomes of each packet; asked with the number of the packet within this script, from 0.
    pub fate: Box<dyn FnMut(u64) -> Fate + Send>,
}

/// What the network does to a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
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
    pub fn once(frames: impl IntoIterator<Item = Arc<[u8]>>) -> Self {
        Self::shared(frames.into_iter().map(Some).collect())
    }

    /// These beats once, on a perfect network.
    pub fn shared(beats: Arc<[Beat]>) -> Self {
        Self { beats, first: 0, repeat: false, lag: None, fate: Box::new(|_| Fate::Arrives) }
    }

    /// These frames again and again, on a perfect network.
    pub fn repeated(frames: impl IntoIterator<Item = Arc<[u8]>>) -> Self {
        Self { repeat: true, ..Self::once(frames) }
    }

    /// Nothing at all: a caller whose microphone is off.
    pub fn silent() -> Self {
        Self::once([])
    }

    /// The same frames on a network that does this to them.
    #[must_use]
    pub fn with_fate(self, fate: impl FnMut(u64) -> Fate + Send + 'static) -> Self {
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
    pub(super) due: Instant,
    /// The entry of the script it comes from; `None` for a key.
    pub(super) position: Option<usize>,
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
    /// How far the script's lag has put off the beats.
    lag: Duration,
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
            position: script.first,
            script,
            packets: 0,
            keys: VecDeque::new(),
            pressing: None,
            started: None,
            beat: 0,
            lag: Duration::ZERO,
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
        self.position = script.first;
        self.script = script;
        self.packets = 0;
    }

    /// Presses a key for this long (at least one beat), when those before it are done.
    pub(super) fn press(&mut self, now: Instant, event: u8, duration: Duration) {
        self.skip_to(now);
        let beats = (duration.as_millis() / FRAME.as_millis()).clamp(1, 300);
        assert!(self.keys.len() < KEYS_MAX, "nobody presses so many keys ahead");
        self.keys.push_back(Key { event, beats: beats as u16 });
    }

    /// When the next beat is due; `None` while there is nothing to say.
    pub(super) fn due(&self) -> Option<Instant> {
        let anything = self.pressing.is_some() || !self.keys.is_empty() || self.script.beat(self.position).is_some();
        self.started.filter(|_| anything).map(|started| started + self.lag + FRAME * self.beat)
    }

    /// The packets of the next beat, if it is due by now: one, none in a gap, three at the end of a key.
    pub(super) fn poll(&mut self, now: Instant) -> Option<Vec<Packet>> {
        let due = self.due().filter(|due| *due <= now)?;
        let timestamp = self.timestamp_base.wrapping_add(self.beat.wrapping_mul(FRAME_TICKS));
        self.beat += 1;
        if self.pressing.is_none() {
            self.pressing = self.keys.pop_front().map(|key| Pressed { key, timestamp, elapsed: 0 });
        }
        let Some(mut pressed) = self.pressing.take() else {
            let beat = self.script.beat(self.position).cloned().flatten();
            let position = self.position;
            self.position += 1;
            if let Some((every, by)) = self.script.lag
                && self.position.is_multiple_of(every)
            {
                self.lag += by;
            }
            let Some(payload) = beat else {
                self.talkspurt = true;
                return Some(Vec::new());
            };
            let marker = std::mem::take(&mut self.talkspurt);
            return Some(vec![self.packet(due, Some(position), PT_OPUS, timestamp, marker, payload)]);
        };
        // The key takes the place of the audio; its timestamp stays that of its beginning.
        let marker = pressed.elapsed == 0;
        pressed.elapsed += 1;
        let end = pressed.elapsed == pressed.key.beats;
        let [high, low] = pressed.elapsed.saturating_mul(FRAME_EVENT_UNITS).to_be_bytes();
        let flags = KEY_VOLUME | if end { KEY_END } else { 0 };
        let payload: Arc<[u8]> = Arc::from([pressed.key.event, flags, high, low]);
        let copies = if end { KEY_ENDS } else { 1 };
        let packets = (0..copies).map(|copy| {
            let marker = marker && copy == 0;
            self.packet(due, None, PT_TELEPHONE_EVENT, pressed.timestamp, marker, payload.clone())
        });
        let packets = packets.collect();
        self.pressing = Some(pressed).filter(|_| !end);
        Some(packets)
    }

    fn packet(
        &mut self,
        due: Instant,
        position: Option<usize>,
        pt: u8,
        timestamp: u32,
        marker: bool,
        payload: Arc<[u8]>,
    ) -> Packet {
        let fate = (self.script.fate)(self.packets);
        self.packets += 1;
        self.seq += 1;
        Packet { due, position, pt, seq: self.seq, timestamp, marker, payload, fate }
    }

    /// After a pause: the beat that comes next, so that RTP time has gone on meanwhile.
    fn skip_to(&mut self, now: Instant) {
        if self.due().is_some() {
            return;
        }
        if let Some(started) = self.started {
            let elapsed = now.saturating_duration_since(started + self.lag).as_nanos().div_ceil(FRAME.as_nanos());
            let beat = u32::try_from(elapsed).expect("no call runs for a year");
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
        let beats = [Some(frame(1)), Some(frame(2)), None, None, Some(frame(3))].into();
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
    fn a_script_begins_where_it_is_told_and_falls_behind_by_its_lag_with_steady_numbers_and_times() {
        let now = Instant::now();
        let beats: Arc<[Beat]> = [1, 2, 3, 4].map(|byte| Some(frame(byte))).into();
        let lag = Some((2, Duration::from_millis(7)));
        let mut player = player(Script { first: 1, repeat: true, lag, ..Script::shared(beats) });
        player.start(now);
        let packets = run(&mut player, now, Duration::from_millis(100));
        let first = packets[0].1.timestamp;
        let seen: Vec<_> = packets
            .iter()
            .map(|(at, p)| (*at, p.payload[0], p.position.unwrap(), p.timestamp.wrapping_sub(first) / 960))
            .collect();
        assert_eq!(seen, [(0, 2, 1, 0), (27, 3, 2, 1), (47, 4, 3, 2), (74, 1, 4, 3), (94, 2, 5, 4)]);
        assert!(packets.iter().all(|(at, p)| p.due == now + Duration::from_millis(*at as u64)));
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
