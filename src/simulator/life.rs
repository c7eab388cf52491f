//! The life of calls at Meta: what is granted, what that changes, what the caller does, and when Meta's client gives up.

use std::time::{Duration, Instant};

use crate::relay::record::{self, Event};
use crate::relay::script::Script;

use super::call::{Call, Ender, Granted, Phase};
use super::expect::shown;
use super::graph::{self, Action, Ask, Asked, Refusal};
use super::scenario::{Accepting, Act, After, Applies, Cue, Fault};
use super::served::Ticket;
use super::{Due, Place, STRAYS_MAX, Simulator};

/// How long a phone rings. Documented: 30 to 60 s; which of them is inferred.
const RING_TIME_MAX: Duration = Duration::from_secs(45);

/// How long a key is pressed.
const KEY_TIME: Duration = Duration::from_millis(160);

/// Seconds after which a request that was too much may be made again.
const RETRY_AFTER_SEC: u32 = 1;

/// Nothing was ever connected at the relay. Inferred from the code's title, "relay connection failed".
const RELAY_FAILED: u32 = 138_020;

/// Connected, and yet no media of the business within 20 s. Documented, and seen live.
const NO_MEDIA: u32 = 138_021;

/// No packet of the business for 30 s in mid-call. The time is documented; that it is this code is inferred from its title,
/// "media transmit timeout". 138023, "accepted but no media signals", is never sent here.
const MEDIA_STOPPED: u32 = 138_022;

impl Simulator {
    fn call(&mut self, (run, number): Place) -> Option<&mut Call> {
        self.runs.get_mut(&run)?.calls.get_mut(number)
    }

    /// Something is to be done, whatever it is: of this call, or of none, which may be any scenario's doing.
    pub(super) fn count_post(&mut self, place: Option<Place>) {
        let concerned = self.runs.iter_mut().filter(|(number, _)| place.is_none_or(|(of, _)| of == **number));
        concerned.for_each(|(_, run)| run.posts += 1);
    }

    /// A request about a call came; nothing is made of it yet.
    pub(super) fn note_request(&mut self, now: Instant, place: Place, asked: &Result<Asked, Refusal>) {
        let Ok(Asked::Call(ask)) = asked else {
            return self.tell(now, place, "bridge > Meta", "a request that cannot be taken");
        };
        let Some(call) = self.call(place) else { return };
        call.asked(now, ask.action);
        let (times, label) = (call.times, ask.action.label());
        let (since, what) = match ask.action {
            Action::PreAccept => (times.told, "the webhook"),
            Action::Accept => (times.connected, "media was connected"),
            Action::Reject | Action::Terminate => (None, ""),
        };
        let text = match since.map(|at| shown(now.saturating_duration_since(at))) {
            Some(after) => format!("{label}, {after} after {what}"),
            None => label.to_owned(),
        };
        self.tell(now, place, "bridge > Meta", text);
    }

    /// Decides on a request, and answers it.
    pub(super) fn decide(&mut self, now: Instant, ticket: Ticket, asked: Result<Asked, Refusal>, place: Option<Place>) {
        if let Some(refusal) = place.and_then(|place| self.fault(place)) {
            return self.refuse(now, ticket, place, &refusal);
        }
        let ask = match asked {
            Ok(Asked::Number) => return self.served.respond(now, ticket, graph::number(&self.config.account)),
            Ok(Asked::Call(ask)) => ask,
            Err(refusal) => return self.refuse(now, ticket, place, &refusal),
        };
        let unknown = || Refusal::parameter("The call_id is that of no call of this number, or of one long over.");
        let Some(place) = place.filter(|place| self.runs.contains_key(&place.0)) else {
            return self.refuse(now, ticket, None, &unknown());
        };
        let how = self.runs[&place.0].scenario.graph;
        let Some(call) = self.call(place) else { return self.refuse(now, ticket, None, &unknown()) };
        match call.decide(now, &ask, &how) {
            Err(refusal) => self.refuse(now, ticket, Some(place), &refusal),
            Ok(granted) => {
                let accepting = if granted == Granted::Up { how.accept } else { Accepting::Normally };
                self.answer(now, ticket, place, &ask, accepting);
                self.granted(now, place, granted);
            }
        }
    }

    /// What becomes of a call's first requests.
    fn fault(&mut self, (run, number): Place) -> Option<Refusal> {
        let run = self.runs.get_mut(&run)?;
        let call = run.calls.get_mut(number)?;
        let fault = run.scenario.graph.first.get(call.counts.faults as usize)?;
        call.counts.faults += 1;
        Some(match fault {
            Fault::Down => Refusal::unavailable(),
            Fault::RateLimited => Refusal::rate_limited(RETRY_AFTER_SEC),
        })
    }

    fn refuse(&mut self, now: Instant, ticket: Ticket, place: Option<Place>, refusal: &Refusal) {
        let (trace, summary) = (self.trace(), refusal.summary());
        self.served.respond(now, ticket, refusal.response(&trace));
        match place {
            Some(place) => self.tell(now, place, "Meta > bridge", summary),
            None if self.report.strays.len() < STRAYS_MAX && !self.report.strays.contains(&summary) => {
                self.report.strays.push(summary);
            }
            None => {}
        }
    }

    fn answer(&mut self, now: Instant, ticket: Ticket, place: Place, ask: &Ask, accepting: Accepting) {
        let text = match accepting {
            Accepting::Normally => {
                self.served.respond(now, ticket, graph::done());
                match ask.action {
                    Action::PreAccept => "200: the phone rings",
                    Action::Accept => "200: the call is up",
                    Action::Reject | Action::Terminate => "200: the call is over",
                }
            }
            Accepting::AsIfAgain => {
                let refusal = Refusal::new(400, 131_055, "The call is in progress already.");
                let trace = self.trace();
                self.served.respond(now, ticket, refusal.response(&trace));
                "131055: the call is up already"
            }
            Accepting::Cut => {
                self.served.cut(ticket);
                "cuts the connection; the call is up"
            }
        };
        if accepting != Accepting::Normally
            && let Some(call) = self.call(place)
        {
            call.is_left_unclear();
        }
        self.tell(now, place, "Meta > bridge", text);
    }

    fn granted(&mut self, now: Instant, place: Place, granted: Granted) {
        let is_first =
            granted == Granted::Rings || self.call(place).is_some_and(|call| call.times.pre_accepted.is_none());
        match granted {
            Granted::Rings | Granted::Up => {
                match self.runs[&place.0].scenario.relay.applies {
                    Applies::After(ms) if is_first => self.at(now + Duration::from_millis(ms), Due::Apply(place)),
                    Applies::WithAccept if granted == Granted::Up => self.apply(now, place),
                    Applies::After(_) | Applies::WithAccept | Applies::Never => {}
                }
                self.cue(now, place, if granted == Granted::Up { Cue::Up } else { Cue::Rings });
            }
            Granted::Over => self.end_call(now, place, Ender::Bridge, None),
            Granted::Again => {}
        }
    }

    /// The relay takes the answer, and answers checks from now on.
    pub(super) fn apply(&mut self, now: Instant, place: Place) {
        let Some(call) = self.call(place).filter(|call| call.phase != Phase::Over) else { return };
        let (key, answer) = (call.key, call.answer().unwrap_or_default().to_owned());
        match self.relay().apply_answer(now, key, &answer) {
            Ok(()) => {
                if let Some(call) = self.call(place) {
                    call.times.applied = Some(now);
                }
                self.tell(now, place, "Meta's relay", "applies the answer: checks are answered from now on");
            }
            Err(error) => {
                if let Some(call) = self.call(place) {
                    call.note(format!("the relay cannot use the answer: {error}"));
                }
            }
        }
    }

    /// The phones of these calls ring so long from now on.
    pub(super) fn let_ring(&mut self, now: Instant, run: usize, calls: &[usize]) {
        for number in calls {
            if self.call((run, *number)).is_some_and(|call| call.times.told == Some(now)) {
                self.at(now + RING_TIME_MAX, Due::RungOut((run, *number)));
            }
        }
    }

    /// Nobody has taken the call, or it is taken by now.
    pub(super) fn rung_out(&mut self, now: Instant, place: Place) {
        if self.call(place).is_some_and(|call| matches!(call.phase, Phase::Calling | Phase::Ringing)) {
            self.tell(now, place, "caller", "gives up: nobody has answered");
            self.end_call(now, place, Ender::Client, None);
        }
    }

    fn cue(&mut self, now: Instant, place: Place, cue: Cue) {
        for step in self.runs[&place.0].scenario.steps.iter().filter(|step| step.cue == cue) {
            let after = match step.after {
                After::Ms(ms) => Duration::from_millis(ms),
                After::Talk(seconds) => self.config.talk.unwrap_or(Duration::from_secs(seconds)),
            };
            self.at(now + after, Due::Act(place, step.act));
        }
    }

    /// The caller does something.
    pub(super) fn act(&mut self, now: Instant, place: Place, act: Act) {
        let Some(call) = self.call(place).filter(|call| call.phase != Phase::Over) else { return };
        let key = call.key;
        match act {
            Act::Say => {
                call.times.spoke = Some(now);
                call.times.heard_back = None;
                let loudness = self.words.loudness();
                if let Some(call) = self.call(place) {
                    call.ear.listen_for(loudness);
                }
                let (script, seconds) = (self.words.say(), self.words.length().as_secs_f64());
                self.relay().play(now, key, script);
                self.tell(now, place, "caller", format!("speaks for {seconds:.1} s"));
            }
            Act::Press(keys) => {
                for event in keys {
                    self.relay().press(now, key, *event, KEY_TIME);
                }
                self.tell(now, place, "caller", format!("presses {} keys", keys.len()));
            }
            Act::Vanish => {
                self.relay().play(now, key, Script::silent());
                self.tell(now, place, "caller", "is cut off: nothing comes from the phone");
            }
            Act::HangUp => {
                self.tell(now, place, "caller", "hangs up");
                self.end_call(now, place, Ender::User, None);
            }
        }
    }

    /// A call is over: the relay stops, and the bridge is told.
    pub(super) fn end_call(&mut self, now: Instant, place: Place, ender: Ender, failure: Option<u32>) {
        let key = self.call(place).map(|call| call.key);
        let record = key.and_then(|key| self.relay.as_ref()?.record(key));
        let quiet = record.map_or(Duration::ZERO, |record| record.longest_gap(now));
        let Some(call) = self.call(place).filter(|call| call.phase != Phase::Over) else { return };
        if call.phase == Phase::Up {
            call.widen_gap(now);
            call.quiet = quiet;
        }
        (call.phase, call.ender, call.failure) = (Phase::Over, Some(ender), failure);
        call.times.ended = Some(now);
        let (key, is_known) = (call.key, call.times.acknowledged.is_some() || call.counts.asked > 0);
        if self.runs[&place.0].scenario.relay.bye {
            self.relay().hang_up(now, key);
        } else {
            self.relay().play(now, key, Script::silent());
        }
        // A bridge that never heard of the call is told no more of it.
        if is_known {
            self.announce_end(now, place);
        }
    }

    /// Something happened at the relay.
    pub(super) fn seen(&mut self, now: Instant, place: Place, event: Event) {
        let Some(call) = self.call(place) else { return };
        match event {
            Event::Connected => {
                call.times.connected.get_or_insert(now);
                self.tell(now, place, "bridge > relay", "ICE and DTLS are connected");
            }
            Event::Closed => self.tell(now, place, "bridge > relay", "the media connection is closed"),
            Event::Received(packet) => {
                if call.phase == Phase::Up {
                    call.widen_gap(packet.at);
                }
                call.times.last_media = Some(packet.at);
                call.times.media.get_or_insert(packet.at);
                if !matches!(call.phase, Phase::Up) {
                    call.counts.early_packets += u64::from(call.times.accepted.is_none());
                    return;
                }
                let since = call.times.accepted.filter(|_| call.times.audio.is_none());
                call.times.audio.get_or_insert(packet.at);
                let begins = call.ear.hear(&packet);
                let number = call.ear.voices;
                if begins {
                    call.times.voice.get_or_insert(packet.at);
                    if call.times.spoke.is_some_and(|spoke| spoke < packet.at) {
                        call.times.heard_back.get_or_insert(packet.at);
                    }
                }
                if let Some(accepted) = since {
                    let after = shown(packet.at.saturating_duration_since(accepted));
                    self.tell(now, place, "bridge > caller", format!("the first audio, {after} after accept's 200"));
                }
                if begins {
                    self.tell(now, place, "bridge > caller", "a voice is heard");
                    self.cue(now, place, Cue::Voice(number));
                }
            }
            Event::Sent(_) => {}
        }
    }

    /// Hears where voices end, and gives up calls as Meta's client does.
    pub(super) fn tick_calls(&mut self, now: Instant) {
        let Some(relay) = &self.relay else { return };
        let (mut lulls, mut lost) = (Vec::new(), Vec::new());
        for (run, number_of) in &mut self.runs {
            for call in number_of.calls.iter_mut().filter(|call| call.phase == Phase::Up) {
                let place = (*run, call.number);
                if call.ear.has_quieted(now) {
                    lulls.push((place, call.ear.lulls));
                }
                let waited = call.times.accepted.map_or(Duration::ZERO, |at| now.saturating_duration_since(at));
                let broke_off = relay.record(call.key).is_some_and(|record| record.media_broke_off(now));
                if call.times.media.is_none() && waited > record::FIRST_MEDIA_MAX {
                    lost.push((place, if call.times.connected.is_some() { NO_MEDIA } else { RELAY_FAILED }));
                } else if broke_off {
                    lost.push((place, MEDIA_STOPPED));
                }
            }
        }
        for (place, number) in lulls {
            self.tell(now, place, "bridge > caller", "the voice has ended");
            self.cue(now, place, Cue::Lull(number));
        }
        for (place, code) in lost {
            self.tell(now, place, "caller", format!("gives up: {} ({code})", graph::title(code).to_lowercase()));
            self.end_call(now, place, Ender::Client, Some(code));
        }
    }
}
