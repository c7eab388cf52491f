//! Places the doctor's call: asks the API on this thread, while the caller runs on a driver of its own.

mod book;
mod line;
mod own;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::config::{EventsUrl, RealtimeUrl};
use crate::doctor::caller::{Ask, Counts, News};
use crate::doctor::causes::{self, Passed, Session};
use crate::doctor::flags::DoctorFlags;
use crate::doctor::steps::{Failure, Name, Report};
use crate::driver::fetch::{Client, FetchError, Fetched};
use crate::driver::inspect::{self, Reach, Stage, Target};
use crate::driver::system;
use crate::driver::tools::{self, Interrupts};
use crate::peer::sdp::lint::{Context, Severity, lint};
use crate::tls::Tls;

use book::Book;
pub use book::Told;
use line::Line;
use own::Own;

/// How long an answer of the API may take.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(5);

/// How long a check, ICE and DTLS may take each: a second at most on any path that works.
const PATH_TIME_MAX: Duration = Duration::from_secs(6);

/// How soon after DTLS media is to come.
const MEDIA_TIME_MAX: Duration = Duration::from_secs(1);

/// The longest start delay that a bridge can be set to.
const HELD_TIME_MAX: Duration = Duration::from_secs(16);

/// How long the model may take to be heard: the bridge gives it 15 s to open a session.
const VOICE_TIME_MAX: Duration = Duration::from_secs(20);

/// How long the caller's first words may take to the model.
const SPEECH_TIME_MAX: Duration = Duration::from_secs(5);

/// Packets of the caller, and appends to the model, that show that it is heard.
const SPEECH_PACKETS: u64 = 25;

/// How long a caller may take to be told that the call is over.
const HANGUP_TIME_MAX: Duration = Duration::from_secs(2);

/// How often it is looked whether a signal came, or what was waited for.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// How often it is looked whether a call is over.
const LOOK_AT_CALL: Duration = Duration::from_millis(500);

/// Why the call goes no further.
enum Halt {
    /// A step failed.
    Failed,
    /// It cannot be placed at all.
    Broken(String),
}

impl Halt {
    fn interrupted() -> Self {
        Self::Broken("interrupted".to_owned())
    }
}

/// Places a call to the bridge at `url`, which `client` asks and whose certificate these authorities (or those of this
/// machine) vouch for. The error says why there was none.
pub fn run(
    flags: &DoctorFlags,
    url: &str,
    client: &Client,
    authorities: Option<&Path>,
    tell: &mut dyn FnMut(Told<'_>),
) -> Result<Report, String> {
    let url = EventsUrl::parse(url).map_err(|problem| format!("--url {problem}"))?;
    let place = url.place();
    let tls = match (place.tls, authorities) {
        (false, _) => None,
        (true, None) => Some(Tls::new()?),
        (true, Some(path)) => Some(Tls::with_roots(tools::authorities(path)?)?),
    };
    let interrupts = Interrupts::catch().map_err(|error| format!("no thread for signals: {error}"))?;
    let mut visit = Visit { flags, interrupts, book: Book::new(tell, place.tls), own: None, call: None };
    let halted = visit.all(client, place, tls.as_ref());
    visit.leave();
    match halted {
        Err(Halt::Broken(why)) => Err(why),
        Ok(()) | Err(Halt::Failed) => Ok(visit.book.close()),
    }
}

/// One visit.
struct Visit<'a> {
    flags: &'a DoctorFlags,
    interrupts: Interrupts,
    book: Book<'a>,
    own: Option<Own>,
    call: Option<Call>,
}

/// The call, from its offer on.
struct Call {
    id: String,
    client: Client,
    line: Line,
    /// Whether the API knows the call and must be told of its end.
    is_open: bool,
}

impl Call {
    fn path(&self) -> String {
        format!("/api/sessions/{}", self.id)
    }

    /// What the API says of it.
    fn session(&self) -> Option<Session> {
        let answer = self.client.get(&self.path()).ok()?;
        if answer.status == 200 { Session::parse(&answer.body) } else { None }
    }
}

impl Visit<'_> {
    fn all(&mut self, client: &Client, place: &RealtimeUrl, tls: Option<&Tls>) -> Result<(), Halt> {
        let (client, server) = self.reach(client, place, tls)?;
        self.knock(&client)?;
        let offer = self.pick_up(client, server)?;
        self.open(&offer)?;
        self.connect()?;
        self.talk()?;
        self.hang_up()
    }

    /// DNS, TCP and TLS. Where nothing listens on this machine, a bridge is started and reached instead.
    fn reach(
        &mut self,
        client: &Client,
        place: &RealtimeUrl,
        tls: Option<&Tls>,
    ) -> Result<(Client, Option<IpAddr>), Halt> {
        self.book.begin(Name::Dns);
        let way = inspect::reach(&Target { host: &place.host, port: place.port, tls, login: None });
        let is_refusal =
            |step: &Reach| step.stage == Stage::Tcp && step.outcome.as_ref().is_err_and(|why| why.contains("refused"));
        if way.iter().any(is_refusal) && !self.flags.no_start && is_here(place) {
            self.book
                .note(format!("Nothing listens on {}:{}: a bridge is started for this call.", place.host, place.port));
            self.book.has_tls = false;
            let own = self.own.insert(Own::start(&self.interrupts)?);
            let client = own.client.clone();
            let url = EventsUrl::parse(&own.url).expect("it was made of an address");
            let place = url.place();
            self.tell_way(
                &inspect::reach(&Target { host: &place.host, port: place.port, tls: None, login: None }),
                place,
            )?;
            return Ok((client, Some(Ipv4Addr::LOCALHOST.into())));
        }
        self.tell_way(&way, place)?;
        let server = way.iter().find(|step| step.stage == Stage::Tcp).and_then(|step| step.outcome.as_ref().ok());
        let server = server.and_then(|address| address.parse::<SocketAddr>().ok()).map(|address| address.ip());
        Ok((client.clone(), server))
    }

    fn tell_way(&mut self, way: &[Reach], place: &RealtimeUrl) -> Result<(), Halt> {
        for Reach { stage, took, outcome } in way {
            let name = match stage {
                Stage::Dns => Name::Dns,
                Stage::Tcp => Name::Tcp,
                Stage::Tls | Stage::Session { .. } => Name::Tls,
            };
            let outcome = outcome.clone().map_err(|why| causes::unreachable(*stage, &why, &place.host, place.port));
            self.book.took(name, *took, outcome)?;
        }
        Ok(())
    }

    /// The token, and whether calls are taken.
    fn knock(&mut self, client: &Client) -> Result<(), Halt> {
        self.book.begin(Name::Token);
        let outcome = judged(client.get("/api/sessions"), causes::token, "200");
        self.book.end(Name::Token, outcome)?;
        self.book.begin(Name::Ready);
        let outcome = judged(client.get("/ready"), causes::ready, "takes calls");
        self.book.end(Name::Ready, outcome)
    }

    /// A caller on a socket of its own, and what it offers.
    fn pick_up(&mut self, client: Client, server: Option<IpAddr>) -> Result<String, Halt> {
        let (ip, why) = line::address(self.flags, server).map_err(Halt::Broken)?;
        let line = Line::start(ip, &self.flags.media_ports)?;
        self.call = Some(Call { id: format!("doctor-{}", drawn()), client, line, is_open: false });
        let found = self.news(PATH_TIME_MAX, |news| match news {
            News::Offer(address, offer) => Some(Ok((*address, offer.clone()))),
            News::Deaf(why) => Some(Err(why.clone())),
            _ => None,
        })?;
        match found {
            Some((_, Ok((address, offer)))) => {
                self.book.note(format!("The caller is at {address}, {why}."));
                Ok(offer)
            }
            Some((_, Err(why))) => Err(Halt::Broken(format!("the caller cannot listen on {ip} (--relay-ip): {why}"))),
            None => Err(Halt::Broken("the caller's thread does not answer".to_owned())),
        }
    }

    /// The offer and its answer.
    fn open(&mut self, offer: &str) -> Result<(), Halt> {
        self.book.begin(Name::Offer);
        let call = self.call.as_mut().expect("the caller made the offer");
        let metadata = json!({ "voice-media-bridge": "doctor" });
        let body = json!({ "callId": call.id, "sdpOffer": offer, "config": { "metadata": metadata } });
        let answered = call.client.post("/api/sessions", &body.to_string());
        let answer = match answered {
            Ok(Fetched { status: 200, body }) => {
                call.is_open = true;
                let sdp = serde_json::from_str::<Value>(&body)
                    .ok()
                    .and_then(|body| Some(body["sdpAnswer"].as_str()?.to_owned()));
                sdp.ok_or_else(|| causes::no_answer("200 without sdpAnswer"))
            }
            Ok(Fetched { status, body }) => Err(causes::refused(status, &body, call.line.ip)),
            Err(error) => Err(causes::no_answer(&error.to_string())),
        };
        let (answer, found) = match answer {
            Ok(answer) => (answer, Ok("200".to_owned())),
            Err(failure) => (String::new(), Err(failure)),
        };
        self.book.end(Name::Offer, found)?;

        self.book.begin(Name::Answer);
        let context = Context { offer: Some(offer), allow_private: true };
        let errors = lint(&answer, context).into_iter().filter(|finding| finding.severity == Severity::Error);
        let errors: Vec<String> = errors.map(|finding| finding.text).collect();
        self.call().line.ask(Ask::Answer(answer.clone()));
        let applied = self.news(PATH_TIME_MAX, |news| match news {
            News::Answered(applied) => Some(applied.clone()),
            _ => None,
        })?;
        let outcome = match applied
            .map_or_else(|| Err("the caller's thread does not answer".to_owned()), |(_, applied)| applied)
        {
            Err(why) => Err(causes::bad_answer(&why)),
            Ok(()) if !errors.is_empty() => Err(causes::bad_answer(&errors.join("; "))),
            Ok(()) => {
                let media = answer.lines().find_map(|line| line.strip_prefix("c=IN IP")?.get(2..)).unwrap_or_default();
                Ok(format!("passes the linter; it advertises {media}"))
            }
        };
        self.book.end(Name::Answer, outcome)
    }

    /// The way of media.
    fn connect(&mut self) -> Result<(), Halt> {
        let ip = self.call().line.ip;
        let is = |which: News| move |news: &News| (*news == which).then_some(());
        self.book.follow(Name::Stun);
        let words = |()| "the bridge's first check came".to_owned();
        let otherwise = |session: Option<&Session>| causes::no_check(PATH_TIME_MAX, ip, session);
        self.await_news(Name::Stun, PATH_TIME_MAX, is(News::Check), words, otherwise)?;

        self.book.follow(Name::Ice);
        let otherwise = |session: Option<&Session>| causes::no_pair(PATH_TIME_MAX, session);
        self.await_news(Name::Ice, PATH_TIME_MAX, is(News::Nominated), |()| "UDP both ways".to_owned(), otherwise)?;

        self.book.follow(Name::Dtls);
        let words = |()| "handshake done, fingerprint as announced".to_owned();
        let otherwise = |_: Option<&Session>| causes::no_dtls(PATH_TIME_MAX);
        self.await_news(Name::Dtls, PATH_TIME_MAX, is(News::Connected), words, otherwise)?;

        self.book.follow(Name::Media);
        let is_held = self.call().session().is_some_and(|session| session.state == "held");
        let patience = if is_held { HELD_TIME_MAX } else { MEDIA_TIME_MAX };
        let first = |news: &News| if let News::Media(after) = news { Some(*after) } else { None };
        let words = |after: Duration| format!("first RTP {:.1} ms after DTLS", after.as_secs_f64() * 1e3);
        self.await_news(Name::Media, patience, first, words, |session| causes::no_media(patience, session))
    }

    /// Both sides are heard, for a while.
    fn talk(&mut self) -> Result<(), Halt> {
        self.book.follow(Name::Voice);
        let heard = |news: &News| (*news == News::Voice).then_some(());
        let otherwise = |session: Option<&Session>| causes::no_voice(VOICE_TIME_MAX, session);
        self.await_news(Name::Voice, VOICE_TIME_MAX, heard, |()| "the model is heard".to_owned(), otherwise)?;

        self.book.begin(Name::Speech);
        match self.speak()? {
            Some(found) => self.book.end(Name::Speech, Ok(found))?,
            None => self.fail(Name::Speech, causes::not_heard)?,
        }

        self.book.begin(Name::Flow);
        let window = Duration::from_secs(self.flags.seconds);
        let before = self.look()?;
        self.pass(window)?;
        let after = self.look()?.filter(|(_, session)| !session.is_over());
        let (Some(before), Some(after)) = (before, after) else {
            return self.fail(Name::Flow, |_| causes::no_answer("the bridge does not tell about the call"));
        };
        let passed = Passed::between((&before.0, &before.1), (&after.0, &after.1));
        // Neither ends a call: what comes after is still worth knowing.
        drop(self.book.end(Name::Flow, passed.judged(window)));
        self.book.begin(Name::Timing);
        drop(self.book.end(Name::Timing, causes::timing(&after.0, &after.1)));
        Ok(())
    }

    /// The caller speaks: what came to the bridge and went on to the model, once that is enough to say so.
    fn speak(&mut self) -> Result<Option<String>, Halt> {
        let before = self.call().session().unwrap_or_default();
        self.call().line.ask(Ask::Speak);
        let end = system::now() + SPEECH_TIME_MAX;
        while system::now() < end && !self.call().line.is_closed {
            self.pass(LOOK_AGAIN)?;
            let now = self.call().session().unwrap_or_default();
            let packets = now.uplink.packets.saturating_sub(before.uplink.packets);
            let appends = now.agent.appends.saturating_sub(before.agent.appends);
            if packets.min(appends) >= SPEECH_PACKETS {
                return Ok(Some(format!("{packets} packets came to the bridge, {appends} appends went to the model")));
            }
        }
        Ok(None)
    }

    /// The end, and what is remembered.
    fn hang_up(&mut self) -> Result<(), Halt> {
        self.book.begin(Name::Hangup);
        let call = self.call.as_mut().expect("there is a call");
        call.is_open = false;
        let mut outcome = judged(call.client.delete(&call.path()), causes::hangup, "200");
        if outcome.is_ok() {
            let closed = self.news(HANGUP_TIME_MAX, |news| (*news == News::Closed).then_some(()))?;
            let told = if closed.is_some() || self.call().line.is_closed {
                "the caller was told"
            } else {
                "the caller was not told"
            };
            outcome = Ok(format!("200, and {told}"));
        }
        self.book.end(Name::Hangup, outcome)?;
        self.book.begin(Name::Record);
        let outcome = causes::record(self.call().session().as_ref());
        self.book.end(Name::Record, outcome)
    }

    /// Hangs up what is still open; nobody waits for what comes of it.
    fn leave(&mut self) {
        if let Some(call) = &self.call {
            if call.is_open {
                let _ = call.client.delete(&call.path());
            }
            call.line.ask(Ask::End);
        }
    }

    /// A step of the call that ends with news of this kind, or fails when none comes in time.
    fn await_news<T>(
        &mut self,
        name: Name,
        patience: Duration,
        wanted: impl Fn(&News) -> Option<T>,
        words: impl FnOnce(T) -> String,
        otherwise: impl FnOnce(Option<&Session>) -> Failure,
    ) -> Result<(), Halt> {
        let end = system::now() + patience;
        loop {
            let left = end.saturating_duration_since(system::now());
            if let Some((at, found)) = self.news(left.min(LOOK_AT_CALL), &wanted)? {
                return self.book.end_at(at, name, Ok(words(found)));
            }
            // Before DTLS is up a caller is not told that the call is over.
            if left.is_zero() || self.call().line.is_closed || self.call().session().is_some_and(|now| now.is_over()) {
                return self.fail(name, otherwise);
            }
        }
    }

    /// A step of the call has failed. Where that is because the bridge has ended the call, it is told so; and where it
    /// did so for the model, at the step that is about the model.
    fn fail(&mut self, name: Name, otherwise: impl FnOnce(Option<&Session>) -> Failure) -> Result<(), Halt> {
        let session = self.call().session();
        let over = session.as_ref().and_then(causes::over);
        let is_model = over.is_some() && session.as_ref().is_some_and(Session::ended_by_model);
        let name = if is_model { name.max(Name::Voice) } else { name };
        self.book.end(name, Err(over.unwrap_or_else(|| otherwise(session.as_ref()))))
    }

    /// What the caller and the bridge have counted.
    fn look(&mut self) -> Result<Option<(Counts, Session)>, Halt> {
        self.call().line.ask(Ask::Count);
        let counts = |news: &News| if let News::Counted(counts) = news { Some(*counts) } else { None };
        let counts = self.news(PATH_TIME_MAX, counts)?;
        Ok(counts.map(|(_, counts)| counts).zip(self.call().session()))
    }

    fn call(&self) -> &Call {
        self.call.as_ref().expect("a caller has picked up")
    }

    fn news<T>(
        &mut self,
        patience: Duration,
        wanted: impl Fn(&News) -> Option<T>,
    ) -> Result<Option<(Instant, T)>, Halt> {
        let call = self.call.as_mut().expect("a caller has picked up");
        call.line.news(&self.interrupts, patience, wanted)
    }

    /// Lets time pass, until the call is over.
    fn pass(&mut self, time: Duration) -> Result<(), Halt> {
        self.news(time, |_| None::<()>).map(drop)
    }
}

/// An answer of the API, or the failure that it means.
fn judged(
    answer: Result<Fetched, FetchError>,
    judge: impl FnOnce(u16, &str) -> Option<Failure>,
    well: &str,
) -> Result<String, Failure> {
    match answer {
        Ok(Fetched { status, body }) => judge(status, &body).map_or_else(|| Ok(well.to_owned()), Err),
        Err(error) => Err(causes::no_answer(&error.to_string())),
    }
}

/// Whether a URL is of this machine.
fn is_here(place: &RealtimeUrl) -> bool {
    place.is_loopback() || place.host.parse::<IpAddr>().is_ok_and(inspect::is_local_address)
}

/// A number that nobody else has.
fn drawn() -> String {
    let mut drawn = [0; 16];
    system::entropy(&mut drawn);
    format!("{:032x}", u128::from_be_bytes(drawn))
}
