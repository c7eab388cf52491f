//! Places the doctor's call: asks the API on this thread, while the caller runs on a driver of its own.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::Path;
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::builtin;
use crate::config::{EventsUrl, IoChoice, RealtimeUrl, Secret};
use crate::doctor::caller::{Ask, Caller, Counts, News, Repertoire};
use crate::doctor::causes::{self, Passed, Session};
use crate::doctor::flags::DoctorFlags;
use crate::doctor::steps::{Ended, Failure, Name, Report, Step};
use crate::driver::children::Child;
use crate::driver::fetch::{Client, FetchError, Fetched};
use crate::driver::inspect::{self, Stage, Target};
use crate::driver::mail::{Routes, Sender, mailbox};
use crate::driver::threads::Threads;
use crate::driver::tools::{self, Interrupts};
use crate::driver::{self, Setup, Window, system};
use crate::peer::sdp::Policy;
use crate::peer::sdp::lint::{Context, Severity, lint};
use crate::tls::Tls;

/// How long an answer of the API may take.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(5);

/// How long a bridge of our own may take to start.
const START_TIME_MAX: Duration = Duration::from_secs(20);

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

/// Where the caller's port may be, the first that is none of the bridge's: it sends to none of its own.
const CALLER_PORTS: [RangeInclusive<u16>; 3] = [20_000..=20_999, 28_000..=28_999, 12_000..=12_999];

/// What is told while it goes on.
#[derive(Debug)]
pub enum Told<'a> {
    /// Something about the call as a whole.
    Note(&'a str),
    /// A step begins.
    Begins(Name),
    /// It is over.
    Ended(&'a Step),
}

/// Why the call goes no further.
enum Halt {
    /// A step failed.
    Failed,
    /// It cannot be placed at all.
    Broken(String),
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
    let place = EventsUrl::parse(url).map_err(|problem| format!("--url {problem}"))?;
    let tls = match (place.place().tls, authorities) {
        (false, _) => None,
        (true, None) => Some(Tls::new()?),
        (true, Some(path)) => Some(Tls::with_roots(tools::authorities(path)?)?),
    };
    let mut visit = Visit {
        flags,
        tell,
        interrupts: Interrupts::catch().map_err(|error| format!("no thread for signals: {error}"))?,
        notes: Vec::new(),
        steps: Vec::new(),
        has_tls: place.place().tls,
        began: system::now(),
        seen: None,
        ended: system::now(),
        own: None,
        call: None,
    };
    let halted = visit.all(client, place.place(), tls.as_ref());
    visit.leave();
    match halted {
        Err(Halt::Broken(why)) => return Err(why),
        Ok(()) | Err(Halt::Failed) => {}
    }
    Ok(visit.report())
}

/// One visit.
struct Visit<'a> {
    flags: &'a DoctorFlags,
    tell: &'a mut dyn FnMut(Told<'_>),
    interrupts: Interrupts,
    notes: Vec<String>,
    steps: Vec<Step>,
    /// Whether TLS is one of them.
    has_tls: bool,
    /// When the step under way began.
    began: Instant,
    /// When what it waited for was so, which may be before it was looked at.
    seen: Option<Instant>,
    /// When the last step ended.
    ended: Instant,
    /// A bridge of our own, gone with this.
    own: Option<Child>,
    call: Option<Call>,
}

/// The call, from its offer on.
struct Call {
    id: String,
    client: Client,
    caller: Sender<Ask>,
    news: Receiver<(Instant, News)>,
    /// News that was not waited for yet.
    kept: Vec<(Instant, News)>,
    ip: IpAddr,
    /// Whether the API knows the call and must be told of its end.
    is_open: bool,
    is_closed: bool,
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

    fn note(&mut self, text: String) {
        (self.tell)(Told::Note(&text));
        self.notes.push(text);
    }

    fn begin(&mut self, name: Name) {
        self.began = system::now();
        self.seen = None;
        (self.tell)(Told::Begins(name));
    }

    /// A step of the call, which goes on by itself: it began when the one before it ended.
    fn follow(&mut self, name: Name) {
        self.begin(name);
        self.began = self.ended;
    }

    /// Notes how a step ended; a failure ends the call, unless it goes on without it.
    fn end(&mut self, name: Name, outcome: Result<String, Failure>) -> Result<(), Halt> {
        self.pass_over(|other| other < name);
        let (ended, halt) = match outcome {
            Ok(found) => (Ended::Ok(found), Ok(())),
            Err(failure) => (Ended::Failed(failure), Err(Halt::Failed)),
        };
        self.ended = self.seen.take().unwrap_or_else(system::now);
        self.tell_step(Step { name, took: self.ended.saturating_duration_since(self.began), ended });
        halt
    }

    fn tell_step(&mut self, step: Step) {
        (self.tell)(Told::Ended(&step));
        self.steps.push(step);
    }

    /// Notes the steps that were not reached.
    fn pass_over(&mut self, are_meant: impl Fn(Name) -> bool) {
        for name in Name::ALL.into_iter().filter(|name| are_meant(*name)) {
            let is_told = self.steps.iter().any(|step| step.name == name);
            if !is_told && (name != Name::Tls || self.has_tls) {
                self.tell_step(Step { name, took: Duration::ZERO, ended: Ended::NotReached });
            }
        }
    }

    fn report(mut self) -> Report {
        self.pass_over(|_| true);
        let passed = self.steps.iter().all(|step| matches!(step.ended, Ended::Ok(_)));
        Report { passed, notes: self.notes, steps: self.steps }
    }

    /// DNS, TCP and TLS. Where nothing listens on this machine, a bridge is started and reached instead.
    fn reach(
        &mut self,
        client: &Client,
        place: &RealtimeUrl,
        tls: Option<&Tls>,
    ) -> Result<(Client, Option<IpAddr>), Halt> {
        self.begin(Name::Dns);
        let target = Target { host: &place.host, port: place.port, tls, login: None };
        let way = inspect::reach(&target);
        let nobody = way
            .iter()
            .any(|step| step.stage == Stage::Tcp && step.outcome.as_ref().is_err_and(|why| why.contains("refused")));
        if nobody && !self.flags.no_start && is_here(place) {
            self.note(format!("Nothing listens on {}: a bridge is started for this call.", authority(place)));
            self.has_tls = false;
            let (url, client) = self.start_bridge()?;
            let place = EventsUrl::parse(&url).expect("it was made here").place().clone();
            let target = Target { host: &place.host, port: place.port, tls: None, login: None };
            self.tell_way(&inspect::reach(&target), &place)?;
            return Ok((client, Some(Ipv4Addr::LOCALHOST.into())));
        }
        self.tell_way(&way, place)?;
        let server = way.iter().find(|step| step.stage == Stage::Tcp).and_then(|step| step.outcome.as_ref().ok());
        let server = server.and_then(|address| address.parse::<SocketAddr>().ok()).map(|address| address.ip());
        Ok((client.clone(), server))
    }

    fn tell_way(&mut self, way: &[inspect::Reach], place: &RealtimeUrl) -> Result<(), Halt> {
        for inspect::Reach { stage, took, outcome } in way {
            let name = match stage {
                Stage::Dns => Name::Dns,
                Stage::Tcp => Name::Tcp,
                Stage::Tls | Stage::Session { .. } => Name::Tls,
            };
            // They were taken together before.
            self.began = system::now().checked_sub(*took).unwrap_or_else(system::now);
            let outcome = outcome.clone().map_err(|why| causes::unreachable(*stage, &why, &place.host, place.port));
            self.end(name, outcome)?;
        }
        Ok(())
    }

    /// A bridge with the settings of this environment, for this call alone: on a free port of loopback, with a token of
    /// its own, and without what others would notice.
    fn start_bridge(&mut self) -> Result<(String, Client), Halt> {
        let port = tools::free_loopback_port().map_err(|error| Halt::Broken(format!("no free port: {error}")))?;
        let (address, token) = (SocketAddr::from((Ipv4Addr::LOCALHOST, port)), drawn());
        let set = [
            ("BRIDGE_LISTEN", address.to_string()),
            ("BRIDGE_API_TOKEN", token.clone()),
            // The caller is on this machine, whatever address the bridge advertises.
            ("BRIDGE_ALLOW_PRIVATE", "1".to_owned()),
            ("BRIDGE_LOG", "warn".to_owned()),
        ];
        let unset = [
            "PORT",
            "BRIDGE_API_TOKEN_FILE",
            "BRIDGE_TLS_CERT",
            "BRIDGE_TLS_KEY",
            "BRIDGE_EVENTS_URL",
            "BRIDGE_EVENTS_TOKEN",
            "BRIDGE_EVENTS_TOKEN_FILE",
            "BRIDGE_AGENT_CHECK_LISTEN",
            "BRIDGE_INSTANCE",
            "LISTEN_FDS",
            "LISTEN_PID",
            "NOTIFY_SOCKET",
            "WATCHDOG_USEC",
        ];
        let set = set.into_iter().map(|(name, value)| (name, Some(value)));
        let changes: Vec<(&str, Option<String>)> = set.chain(unset.map(|name| (name, None))).collect();
        let mut child = Child::start_alike(&["serve".to_owned()], &changes)
            .map_err(|error| Halt::Broken(format!("a bridge cannot be started: {error}")))?;
        let url = format!("http://{address}");
        let client = Client::new(&url, Some(&Secret::new(token)), ANSWER_TIME_MAX)
            .map_err(|error| Halt::Broken(error.to_string()))?;
        let end = system::now() + START_TIME_MAX;
        while !client.get("/health").is_ok_and(|answer| answer.status == 200) {
            if child.has_ended() || system::now() > end {
                let said = child.stderr();
                return Err(Halt::Broken(format!("a bridge was started for this call and ended: {}", said.trim())));
            }
            self.pause(LOOK_AGAIN)?;
        }
        self.own = Some(child);
        Ok((url, client))
    }

    /// The token, and whether calls are taken.
    fn knock(&mut self, client: &Client) -> Result<(), Halt> {
        self.begin(Name::Token);
        let outcome = judged(client.get("/api/sessions"), causes::token, "200");
        self.end(Name::Token, outcome)?;
        self.begin(Name::Ready);
        let outcome = judged(client.get("/ready"), causes::ready, "takes calls");
        self.end(Name::Ready, outcome)
    }

    /// A caller on a socket of its own, and what it offers.
    fn pick_up(&mut self, client: Client, server: Option<IpAddr>) -> Result<String, Halt> {
        self.begin(Name::Offer);
        let (ip, why) = self.caller_ip(server).map_err(Halt::Broken)?;
        let mut seed = [0; 8];
        system::entropy(&mut seed);
        let voices = Repertoire::new(&builtin::recording(), u64::from_le_bytes(seed)).map_err(Halt::Broken)?;
        let broken = |what: &str, error: &dyn std::fmt::Display| Halt::Broken(format!("{what}: {error}"));
        let (caller, inbox) = mailbox::<Ask>().map_err(|error| broken("no mailbox", &error))?;
        let (sender, news) = mpsc::channel();
        let mut setup = Setup::new("caller", inbox, Routes::new());
        setup.ports = Some(caller_ports(&self.flags.media_ports));
        setup.window = Window::of_tool();
        let kind = driver::probe(IoChoice::Auto).map_err(Halt::Broken)?.kind;
        let make = move || {
            // Whoever listens may be gone by the end.
            let sink = Box::new(move |at, news| drop(sender.send((at, news))));
            Caller::new(ip, voices, sink)
        };
        let spawned = Threads::new(caller.stopper()).spawn(kind, setup, make);
        spawned.map_err(|error| broken("no thread for the caller", &error))?;
        let id = format!("doctor-{}", drawn());
        self.call = Some(Call { id, client, caller, news, kept: Vec::new(), ip, is_open: false, is_closed: false });
        let found = self.news(PATH_TIME_MAX, |news| match news {
            News::Offer(address, offer) => Some(Ok((*address, offer.clone()))),
            News::Deaf(why) => Some(Err(why.clone())),
            _ => None,
        })?;
        match found {
            Some(Ok((address, offer))) => {
                self.note(format!("The caller is at {address}, {why}."));
                Ok(offer)
            }
            Some(Err(why)) => Err(Halt::Broken(format!("the caller cannot listen on {ip} (--relay-ip): {why}"))),
            None => Err(Halt::Broken("the caller's thread does not answer".to_owned())),
        }
    }

    /// Where the caller listens, and why there.
    fn caller_ip(&self, server: Option<IpAddr>) -> Result<(IpAddr, String), String> {
        if let Some(ip) = self.flags.relay_ip {
            if !inspect::is_local_address(ip) {
                return Err(format!("--relay-ip {ip} is no address of this machine: `ip -brief address` shows them"));
            }
            return Ok((ip, "as asked for".to_owned()));
        }
        let usable = |ip: IpAddr| {
            let policy = Policy {
                allow_private: true,
                own_listener: None,
                own_media_ports: RangeInclusive::new(1, 0),
                own_media_ip: ip,
            };
            ip.is_ipv4() && inspect::is_local_address(ip) && policy.usable(SocketAddr::new(ip, 20_000)).is_ok()
        };
        let media_ip = self.flags.media_ip;
        if let Some(ip) = media_ip.filter(|ip| usable(*ip)) {
            return Ok((ip, "the address that the bridge advertises".to_owned()));
        }
        if let Some(ip) = system::default_route_ip().filter(|ip| usable(*ip)) {
            let beyond = match media_ip {
                Some(media_ip) => format!(
                    ": the advertised {media_ip} is none of this machine's, and few NATs send a packet back to where it \
                     came from, so what lies beyond this machine is not tested"
                ),
                None => String::new(),
            };
            return Ok((ip, format!("this machine's address of the default route{beyond}")));
        }
        if server.is_some_and(|ip| ip.is_loopback()) {
            return Ok((Ipv4Addr::LOCALHOST.into(), "loopback, for want of another address".to_owned()));
        }
        Err("this machine has no address that the bridge could send to; name one with --relay-ip".to_owned())
    }

    /// The offer and its answer.
    fn open(&mut self, offer: &str) -> Result<(), Halt> {
        self.begin(Name::Offer);
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
            Ok(Fetched { status, body }) => Err(causes::refused(status, &body, call.ip)),
            Err(error) => Err(causes::no_answer(&error.to_string())),
        };
        let (answer, found) = match answer {
            Ok(answer) => (answer, Ok("200".to_owned())),
            Err(failure) => (String::new(), Err(failure)),
        };
        self.end(Name::Offer, found)?;

        self.begin(Name::Answer);
        let context = Context { offer: Some(offer), allow_private: true };
        let errors = lint(&answer, context).into_iter().filter(|finding| finding.severity == Severity::Error);
        let errors: Vec<String> = errors.map(|finding| finding.text).collect();
        self.ask(Ask::Answer(answer.clone()));
        let applied = self.news(PATH_TIME_MAX, |news| match news {
            News::Answered(applied) => Some(applied.clone()),
            _ => None,
        })?;
        let outcome = match applied.unwrap_or_else(|| Err("the caller's thread does not answer".to_owned())) {
            Err(why) => Err(causes::bad_answer(&why)),
            Ok(()) if !errors.is_empty() => Err(causes::bad_answer(&errors.join("; "))),
            Ok(()) => {
                let media = answer.lines().find_map(|line| line.strip_prefix("c=IN IP")?.get(2..)).unwrap_or_default();
                Ok(format!("passes the linter; it advertises {media}"))
            }
        };
        self.end(Name::Answer, outcome)
    }

    /// The way of media.
    fn connect(&mut self) -> Result<(), Halt> {
        let ip = self.call.as_ref().expect("there is a call").ip;
        self.follow(Name::Stun);
        let check = self.in_time(PATH_TIME_MAX, |news| (*news == News::Check).then_some(()))?;
        self.in_call(Name::Stun, check.map(|()| "the bridge's first check came".to_owned()), |session| {
            causes::no_check(PATH_TIME_MAX, ip, session)
        })?;
        self.follow(Name::Ice);
        let pair = self.in_time(PATH_TIME_MAX, |news| (*news == News::Nominated).then_some(()))?;
        self.in_call(Name::Ice, pair.map(|()| "UDP both ways".to_owned()), |session| {
            causes::no_pair(PATH_TIME_MAX, session)
        })?;
        self.follow(Name::Dtls);
        let connected = self.in_time(PATH_TIME_MAX, |news| (*news == News::Connected).then_some(()))?;
        self.in_call(Name::Dtls, connected.map(|()| "handshake done, fingerprint as announced".to_owned()), |_| {
            causes::no_dtls(PATH_TIME_MAX)
        })?;
        self.follow(Name::Media);
        let first = |news: &News| if let News::Media(after) = news { Some(*after) } else { None };
        let mut media = self.in_time(MEDIA_TIME_MAX, first)?;
        let mut waited = MEDIA_TIME_MAX;
        if media.is_none() && self.session().is_some_and(|session| session.state == "held") {
            waited = HELD_TIME_MAX;
            media = self.in_time(HELD_TIME_MAX, first)?;
        }
        let found = media.map(|after| format!("first RTP {:.0} ms after DTLS", after.as_secs_f64() * 1e3));
        self.in_call(Name::Media, found, |session| causes::no_media(waited, session))
    }

    /// Both sides are heard, for a while.
    fn talk(&mut self) -> Result<(), Halt> {
        self.follow(Name::Voice);
        let voice = self.in_time(VOICE_TIME_MAX, |news| (*news == News::Voice).then_some(()))?;
        self.in_call(Name::Voice, voice.map(|()| "the model is heard".to_owned()), |session| {
            causes::no_voice(VOICE_TIME_MAX, session)
        })?;

        self.begin(Name::Speech);
        let before = self.session().unwrap_or_default();
        self.ask(Ask::Speak);
        let end = system::now() + SPEECH_TIME_MAX;
        let mut found = None;
        while found.is_none() && system::now() < end && !self.is_closed() {
            self.pass(LOOK_AGAIN)?;
            let now = self.session().unwrap_or_default();
            let packets = now.uplink.packets.saturating_sub(before.uplink.packets);
            let appends = now.agent.appends.saturating_sub(before.agent.appends);
            if packets.min(appends) >= SPEECH_PACKETS {
                found = Some(format!("{packets} packets came to the bridge, {appends} appends went to the model"));
            }
        }
        self.in_call(Name::Speech, found, causes::not_heard)?;

        self.begin(Name::Flow);
        let before = self.look()?;
        let window = Duration::from_secs(self.flags.seconds);
        self.pass(window)?;
        let after = self.look()?;
        let (Some(before), Some(after)) = (before, after.filter(|(_, session)| !session.is_over())) else {
            return self.in_call(Name::Flow, None, |_| causes::no_answer("the bridge does not tell about the call"));
        };
        let passed = Passed::between((&before.0, &before.1), (&after.0, &after.1));
        // Neither ends a call: what comes after is still worth knowing.
        drop(self.end(Name::Flow, passed.judged(window)));
        self.begin(Name::Timing);
        drop(self.end(Name::Timing, causes::timing(&after.0, &after.1)));
        Ok(())
    }

    /// The end, and what is remembered.
    fn hang_up(&mut self) -> Result<(), Halt> {
        self.begin(Name::Hangup);
        let call = self.call.as_mut().expect("there is a call");
        call.is_open = false;
        let mut outcome = judged(call.client.delete(&format!("/api/sessions/{}", call.id)), causes::hangup, "200");
        if outcome.is_ok() {
            let closed = self.news(HANGUP_TIME_MAX, |news| (*news == News::Closed).then_some(()))?;
            let told =
                if closed.is_some() || self.is_closed() { "the caller was told" } else { "the caller was not told" };
            outcome = Ok(format!("200, and {told}"));
        }
        self.end(Name::Hangup, outcome)?;
        self.begin(Name::Record);
        let outcome = causes::record(self.session().as_ref());
        self.end(Name::Record, outcome)
    }

    /// Hangs up what is still open; nobody waits for what comes of it.
    fn leave(&mut self) {
        if let Some(call) = &self.call {
            if call.is_open {
                let _ = call.client.delete(&format!("/api/sessions/{}", call.id));
            }
            let _ = call.caller.send(Ask::End);
        }
    }

    /// Ends a step of the call. One that failed because the bridge ended the call is told so; and where that was for the
    /// model, at the step that is about the model.
    fn in_call(
        &mut self,
        name: Name,
        found: Option<String>,
        otherwise: impl FnOnce(Option<&Session>) -> Failure,
    ) -> Result<(), Halt> {
        if let Some(found) = found {
            return self.end(name, Ok(found));
        }
        let session = self.session();
        let over = session.as_ref().and_then(causes::over);
        let is_model = over.is_some() && session.as_ref().is_some_and(Session::ended_by_model);
        let name = if is_model { name.max(Name::Voice) } else { name };
        self.end(name, Err(over.unwrap_or_else(|| otherwise(session.as_ref()))))
    }

    /// What the API says of the call.
    fn session(&self) -> Option<Session> {
        let call = self.call.as_ref()?;
        let answer = call.client.get(&format!("/api/sessions/{}", call.id)).ok()?;
        if answer.status == 200 { Session::parse(&answer.body) } else { None }
    }

    /// What the caller and the bridge have counted.
    fn look(&mut self) -> Result<Option<(Counts, Session)>, Halt> {
        self.ask(Ask::Count);
        let counts =
            self.news(PATH_TIME_MAX, |news| if let News::Counted(counts) = news { Some(*counts) } else { None })?;
        Ok(counts.zip(self.session()))
    }

    fn ask(&self, ask: Ask) {
        // A caller whose loop has failed says no more, and that is found out where it is waited for.
        let _ = self.call.as_ref().expect("there is a call").caller.send(ask);
    }

    fn is_closed(&self) -> bool {
        self.call.as_ref().is_some_and(|call| call.is_closed)
    }

    /// Waits as `news` does, and looks at the call meanwhile: before DTLS is up a caller is not told that it is over.
    fn in_time<T>(&mut self, patience: Duration, wanted: impl Fn(&News) -> Option<T>) -> Result<Option<T>, Halt> {
        let end = system::now() + patience;
        loop {
            let left = end.saturating_duration_since(system::now());
            let found = self.news(left.min(LOOK_AT_CALL), &wanted)?;
            let is_over = || self.session().is_some_and(|session| session.is_over());
            if found.is_some() || left.is_zero() || self.is_closed() || is_over() {
                return Ok(found);
            }
        }
    }

    /// Waits for news that `wanted` takes; in vain, at the latest, when the call is over. Other news is kept: each comes
    /// once in a call.
    fn news<T>(&mut self, patience: Duration, wanted: impl Fn(&News) -> Option<T>) -> Result<Option<T>, Halt> {
        let end = system::now() + patience;
        loop {
            let call = self.call.as_mut().expect("there is a call");
            let found = call.kept.iter().enumerate().find_map(|(place, (_, news))| Some((place, wanted(news)?)));
            if let Some((place, found)) = found {
                self.seen = Some(call.kept.swap_remove(place).0);
                return Ok(Some(found));
            }
            let left = end.saturating_duration_since(system::now());
            match call.news.recv_timeout(left.min(LOOK_AGAIN)) {
                Ok((at, news)) => {
                    call.is_closed |= news == News::Closed;
                    call.kept.push((at, news));
                }
                Err(_) if left.is_zero() || call.is_closed => return Ok(None),
                Err(_) => self.pause(Duration::from_millis(1))?,
            }
        }
    }

    /// Lets time pass, until the call is over.
    fn pass(&mut self, time: Duration) -> Result<(), Halt> {
        self.news(time, |_| None::<()>).map(drop)
    }

    /// Lets a moment pass, unless a signal comes.
    fn pause(&self, time: Duration) -> Result<(), Halt> {
        if self.interrupts.wait(time) { Err(Halt::Broken("interrupted".to_owned())) } else { Ok(()) }
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

fn authority(place: &RealtimeUrl) -> String {
    let host = if place.host.contains(':') { format!("[{}]", place.host) } else { place.host.clone() };
    format!("{host}:{}", place.port)
}

/// Ports that are none of the bridge's.
fn caller_ports(media_ports: &str) -> RangeInclusive<u16> {
    let taken = media_ports
        .split_once('-')
        .and_then(|(first, last)| Some(first.trim().parse::<u16>().ok()?..=last.trim().parse::<u16>().ok()?));
    let is_free = |range: &RangeInclusive<u16>| {
        taken.as_ref().is_none_or(|taken| range.end() < taken.start() || taken.end() < range.start())
    };
    CALLER_PORTS.into_iter().find(is_free).unwrap_or(CALLER_PORTS[0].clone())
}

/// A number that nobody else has.
fn drawn() -> String {
    let mut drawn = [0; 16];
    system::entropy(&mut drawn);
    format!("{:032x}", u128::from_be_bytes(drawn))
}
