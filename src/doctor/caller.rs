//! One caller on a real socket: WhatsApp's relay with a single call, told what to do and telling what it sees.
//!
//! It is silent, as a caller who listens, until it is told to speak. It must not know the bridge's API: whoever owns it
//! carries the offer and the answer.

use std::collections::VecDeque;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use crate::audio::{Decoder, PACKET_SAMPLES_MAX};
use crate::io::{Datagram, Deadline, Input, Machine, Output, SocketKey};
use crate::load::Talk;
use crate::load::call::{Call, State};
use crate::load::report::Packets;
use crate::load::tally;
use crate::load::voices::Voices;
use crate::relay::record::{Detail, Event};
use crate::relay::rng::Rng;
use crate::relay::{CallKey, Relay};
use crate::stats::{Histogram, Percentiles};

/// Root mean square of a packet's samples from which it is sound: far above what a codec makes of silence, far below
/// speech.
const SOUND_RMS: f64 = 200.0;

/// Packets of sound that make a voice: 100 ms.
const VOICE_PACKETS: u32 = 5;

const SOCKET: SocketKey = SocketKey { slot: 0, generation: 0 };

/// What the caller is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ask {
    /// The answer to its offer.
    Answer(String),
    /// Speak, from now on.
    Speak,
    /// Count what has passed.
    Count,
    /// Be gone.
    End,
}

/// What it tells.
#[derive(Clone, Debug, PartialEq)]
pub enum News {
    /// It listens there, and this is its offer.
    Offer(SocketAddr, String),
    /// It cannot listen.
    Deaf(String),
    /// It has read the answer, or refuses it as WhatsApp would.
    Answered(Result<(), String>),
    /// The first connectivity check came.
    Check,
    /// ICE has its pair.
    Nominated,
    /// DTLS is up.
    Connected,
    /// The first RTP packet came, so long after DTLS.
    Media(Duration),
    /// A voice is heard.
    Voice,
    /// The other side closed.
    Closed,
    /// What was counted.
    Counted(Counts),
}

/// What has passed since DTLS.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Counts {
    /// RTP both ways.
    pub packets: Packets,
    /// How far packets came off their beat.
    pub deviation: Option<Percentiles>,
}

/// Where it tells it, and when that was so.
pub type Sink = Box<dyn FnMut(Instant, News)>;

/// What a caller has to say: a listener's silence, and words.
#[derive(Debug)]
pub struct Repertoire {
    silence: Voices,
    words: Voices,
    rng: Rng,
}

impl Repertoire {
    /// Encodes it; takes a fraction of a second. `recording` is speech, 24 kHz mono.
    pub fn new(recording: &[i16], seed: u64) -> Result<Self, String> {
        let mut rng = Rng::new(seed);
        let mut voices = |talk| Voices::new(recording, talk, &mut rng).map_err(|error| format!("no voice: {error}"));
        let (silence, words) = (voices(Talk::Share(0.0))?, voices(Talk::Always)?);
        Ok(Self { silence, words, rng })
    }
}

/// The machine.
pub struct Caller {
    ip: IpAddr,
    voices: Repertoire,
    line: Option<Line>,
    sink: Sink,
    outputs: VecDeque<Output<Ask>>,
}

/// The call, once there is a port.
struct Line {
    relay: Relay,
    key: CallKey,
    call: Call,
    decoder: Decoder,
    sound: u32,
    deviation: Histogram,
    was_checked: bool,
    was_nominated: bool,
}

impl Caller {
    /// A caller that will listen on `ip`.
    pub fn new(ip: IpAddr, voices: Repertoire, sink: Sink) -> Self {
        let bind = Output::BindUdp { socket: SOCKET, address: ip };
        Self { ip, voices, line: None, sink, outputs: [bind].into() }
    }

    fn bound(&mut self, now: Instant, port: u16) -> Result<(), String> {
        let address = SocketAddr::new(self.ip, port);
        let Repertoire { silence, rng, .. } = &mut self.voices;
        let mut relay = Relay::new(address, rng.next_u64()).with_detail(Detail::Events);
        let (key, offer) = relay.offer(now, silence.caller(rng));
        let failed = |error| format!("no decoder: {error}");
        self.line = Some(Line {
            relay,
            key,
            call: Call::new(String::new(), false).map_err(failed)?,
            decoder: Decoder::new().map_err(failed)?,
            sound: 0,
            deviation: Histogram::new(),
            was_checked: false,
            was_nominated: false,
        });
        (self.sink)(now, News::Offer(address, offer));
        Ok(())
    }

    fn told(&mut self, now: Instant, ask: Ask) {
        let Some(line) = &mut self.line else {
            return if ask == Ask::End {
                self.outputs.push_back(Output::Exit);
            };
        };
        match ask {
            Ask::Answer(answer) => {
                let applied = line.relay.apply_answer(now, line.key, &answer).map_err(|error| error.to_string());
                line.call.state = State::Answered(now);
                (self.sink)(now, News::Answered(applied));
            }
            Ask::Speak => {
                let Repertoire { words, rng, .. } = &mut self.voices;
                line.relay.play(now, line.key, words.caller(rng));
            }
            Ask::Count => {
                let packets = line.relay.record(line.key).map(tally::count).unwrap_or_default();
                (self.sink)(now, News::Counted(Counts { packets, deviation: line.deviation.percentiles() }));
            }
            Ask::End => {
                line.relay.hang_up(now, line.key);
                self.pump(now);
                self.outputs.push_back(Output::Exit);
            }
        }
    }

    /// Tells what is new, and sends what the relay has to send.
    fn pump(&mut self, now: Instant) {
        let Some(line) = &mut self.line else { return };
        let (sink, key) = (&mut self.sink, line.key);
        if let Some(record) = line.relay.record(key) {
            let (checked, nominated) = (record.checks.first.is_some(), record.nominated.is_some());
            if checked && !std::mem::replace(&mut line.was_checked, true) {
                sink(now, News::Check);
            }
            if nominated && !std::mem::replace(&mut line.was_nominated, true) {
                sink(now, News::Nominated);
            }
        }
        while let Some((_, event)) = line.relay.poll_event() {
            match event {
                Event::Connected => sink(now, News::Connected),
                Event::Received(packet) => {
                    let heard = line.call.hear(&packet);
                    if let Some(after) = heard.first {
                        sink(now, News::Media(after));
                    }
                    if let Some(deviation) = heard.deviation {
                        line.deviation.record(deviation);
                    }
                    if line.sound < VOICE_PACKETS && is_sound(&mut line.decoder, &packet.payload) {
                        line.sound += 1;
                        if line.sound == VOICE_PACKETS {
                            sink(now, News::Voice);
                        }
                    }
                }
                Event::Closed => sink(now, News::Closed),
                Event::Sent(_) => {}
            }
        }
        while let Some(crate::relay::Datagram { to, payload }) = line.relay.poll_transmit() {
            self.outputs.push_back(Output::Send { socket: SOCKET, to, payload });
        }
    }
}

/// Whether there is sound in a packet.
fn is_sound(decoder: &mut Decoder, payload: &[u8]) -> bool {
    let mut pcm = [0; PACKET_SAMPLES_MAX];
    let Ok(len @ 1..) = decoder.decode(payload, &mut pcm) else { return false };
    let sum: f64 = pcm[..len].iter().map(|sample| f64::from(*sample).powi(2)).sum();
    (sum / len as f64).sqrt() > SOUND_RMS
}

impl Machine for Caller {
    type Message = Ask;

    fn handle_input(&mut self, now: Instant, input: Input<'_, Ask>) {
        match input {
            Input::UdpBound { port, .. } => {
                if let Err(why) = self.bound(now, port) {
                    (self.sink)(now, News::Deaf(why));
                }
            }
            Input::UdpRefused { fault, .. } => (self.sink)(now, News::Deaf(fault.to_string())),
            Input::Datagram(Datagram { from, payload, received, .. }) => {
                if let Some(line) = &mut self.line {
                    line.relay.handle_arrival(now, received, from, payload);
                }
            }
            Input::Timeout => {
                if let Some(line) = &mut self.line {
                    line.relay.handle_timeout(now);
                }
            }
            Input::Message(ask) => self.told(now, ask),
            Input::Stop => self.outputs.push_back(Output::Exit),
            _ => {}
        }
        // The state that `hear` measures from.
        if let Some(line) = &mut self.line
            && let State::Answered(_) = line.call.state
            && let Some(at) = line.relay.record(line.key).and_then(|record| record.connected)
        {
            line.call.state = State::Connected(at);
        }
        self.pump(now);
    }

    fn poll_output(&mut self) -> Output<Ask> {
        let due = self.line.as_ref().and_then(|line| line.relay.poll_timeout());
        let deadline = Deadline { at: due, reason: "relay" };
        self.outputs.pop_front().unwrap_or(Output::Timeout(deadline))
    }
}

impl fmt::Debug for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Caller").field("ip", &self.ip).finish_non_exhaustive()
    }
}
