//! What it means when a step fails: from what was seen to the likely cause and the way out.

use std::net::IpAddr;
use std::time::Duration;

use serde::Deserialize;

use crate::driver::inspect::Stage;

use super::caller::Counts;
use super::steps::Failure;

/// Characters of another program's words that are shown.
const WORDS_MAX: usize = 200;

/// Deviation of arrival, 99th percentile, above which a caller's jitter buffer begins to grow: a beat.
const DEVIATION_US_MAX: u64 = 20_000;

/// Lateness of the bridge's frames from which it is the bridge that is late.
const TICK_LATE_US_MAX: u64 = 5_000;

/// Share of the packets of a beat of 20 ms that must have come: a stall at the edge of the window is none.
const FLOW_SHARE_MIN: f64 = 0.9;

/// A call, as `GET /api/sessions/{callId}` shows it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Session {
    /// Where it is in its life.
    pub state: String,
    /// Why it ended.
    pub close_reason: Option<String>,
    /// The same in words.
    pub close_detail: Option<String>,
    /// The WebRTC side.
    pub peer: Peer,
    /// Caller to model.
    pub uplink: Uplink,
    /// Model to caller.
    pub downlink: Downlink,
    /// The model side.
    pub agent: Agent,
    /// Latencies.
    pub latency: Vec<Latency>,
}

/// The WebRTC side.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Peer {
    /// Datagrams received.
    pub datagrams_received: u64,
    /// Datagrams sent.
    pub datagrams_sent: u64,
}

/// Caller to model.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Uplink {
    /// Audio packets.
    pub packets: u64,
    /// Those that never came in time.
    pub lost: u64,
}

/// Model to caller.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Downlink {
    /// Audio of the model sent to the caller, milliseconds.
    pub played_ms: u64,
}

/// The model side.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Agent {
    /// Appends sent.
    pub appends: u64,
    /// Audio deltas received.
    pub deltas: u64,
}

/// One stage's.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Latency {
    /// Its word.
    pub stage: String,
    /// 99th percentile.
    pub p99_us: u64,
}

impl Session {
    /// Reads it.
    pub fn parse(body: &str) -> Option<Self> {
        serde_json::from_str(body).ok()
    }

    /// Whether the call is over.
    pub fn is_over(&self) -> bool {
        self.state == "ended"
    }

    /// Whether it is over because of the model.
    pub fn ended_by_model(&self) -> bool {
        self.is_over() && self.close_reason.as_deref().is_some_and(|reason| reason.starts_with("agent_"))
    }

    fn tick_late_p99_us(&self) -> Option<u64> {
        self.latency.iter().find(|latency| latency.stage == "tick_late").map(|latency| latency.p99_us)
    }
}

/// What refusals carry.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Refusal {
    error: String,
    code: String,
}

impl Refusal {
    fn parse(body: &str) -> Self {
        serde_json::from_str(body).unwrap_or_default()
    }

    fn found(&self, status: u16) -> String {
        match (self.code.as_str(), self.error.as_str()) {
            ("", "") => format!("{status}, without a word that this API uses"),
            ("", error) => format!("{status}: {}", shown(error)),
            (code, error) => format!("{status} {}: {}", shown(code), shown(error)),
        }
    }
}

/// The way to the API ends at a step.
pub fn unreachable(stage: Stage, why: &str, host: &str, port: u16) -> Failure {
    let why = shown(why);
    match stage {
        Stage::Dns => Failure::new(
            why,
            format!("{host} is misspelt, or this machine's resolver does not know it"),
            format!("give the right --url; `getent hosts {host}` must print an address"),
        ),
        Stage::Tcp => Failure::new(
            why,
            "no bridge runs there, it listens on another address or port, or a firewall drops TCP",
            format!(
                "systemctl status voice-media-bridge; `ss -ltn` must show {port}, and BRIDGE_LISTEN an address that is reached from here"
            ),
        ),
        Stage::Tls | Stage::Session { .. } => Failure::new(
            why,
            "the certificate is not for this name, has expired or is from an authority that this machine does not trust, or the port speaks plain HTTP",
            format!(
                "`openssl s_client -connect {host}:{port} -servername {host}` shows the certificate; the name in --url must be one of its names"
            ),
        ),
    }
}

/// A request that no answer came to.
pub fn no_answer(why: &str) -> Failure {
    Failure::new(
        shown(why),
        "something else than a bridge listens there, or the bridge hangs",
        "journalctl -u voice-media-bridge; a restart (systemctl restart voice-media-bridge) ends a hang and all calls",
    )
}

/// What `GET /api/sessions` came to, if not to 200.
pub fn token(status: u16, body: &str) -> Option<Failure> {
    let found = Refusal::parse(body).found(status);
    match status {
        200 => None,
        401 => Some(Failure::new(
            found,
            "the bridge has another token than the one given here, or none was given",
            "give the bridge's own: --token or BRIDGE_API_TOKEN (after a change of the token, restart the bridge or send it SIGHUP)",
        )),
        403 => Some(Failure::new(
            found,
            "a bridge without a token takes requests for its own address only",
            "give --url as http://127.0.0.1:PORT, or set BRIDGE_API_TOKEN for the bridge",
        )),
        404 => Some(Failure::new(
            found,
            "what listens there is no bridge, or a proxy in front of it drops the path",
            "give the --url below which /api/sessions is",
        )),
        _ => Some(no_answer(&found)),
    }
}

/// What `GET /ready` came to, if not to 200.
pub fn ready(status: u16, body: &str) -> Option<Failure> {
    (status != 200).then(|| busy(status, body))
}

fn busy(status: u16, body: &str) -> Failure {
    let refusal = Refusal::parse(body);
    let (cause, advice) = match refusal.code.as_str() {
        "full" => (
            "it has as many calls as BRIDGE_MAX_CALLS allows",
            "raise BRIDGE_MAX_CALLS or add a machine; `voice-media-bridge top` shows the calls",
        ),
        "overloaded" => {
            ("its cores are at their limit", "add a machine or cores; `voice-media-bridge top` shows the load of each")
        }
        "draining" | "stopping" => (
            "it is being stopped or replaced",
            "use the other instance, or start it again: systemctl start voice-media-bridge",
        ),
        "no_port" => {
            ("no media port is free", "widen BRIDGE_MEDIA_PORTS (and the firewall); `ss -lun` shows who holds them")
        }
        _ => ("a fault of the bridge", "journalctl -u voice-media-bridge"),
    };
    Failure::new(refusal.found(status), cause, advice)
}

/// An offer that was not answered.
pub fn refused(status: u16, body: &str, caller: IpAddr) -> Failure {
    let refusal = Refusal::parse(body);
    let found = refusal.found(status);
    match (status, refusal.code.as_str()) {
        (400, "offer_no_candidate") => Failure::new(
            found,
            format!(
                "the bridge must not send to the caller's address {caller}: it advertises a public address, and callers on private ones are refused then"
            ),
            "--relay-ip with a public address of this machine; or BRIDGE_ALLOW_PRIVATE=1 for the bridge where callers really are private",
        ),
        (401 | 403, _) => token(status, body).expect("it is no success"),
        (503, _) => busy(status, body),
        _ => Failure::new(
            found,
            "this bridge and this program are of different versions, or a fault of the bridge",
            "voice-media-bridge --version on both sides; journalctl -u voice-media-bridge",
        ),
    }
}

/// An answer that WhatsApp would not take.
pub fn bad_answer(why: &str) -> Failure {
    Failure::new(
        shown(why),
        "something on the way changed the answer, or a fault of the bridge",
        "call the bridge itself, without the proxy; the answer must arrive byte for byte, with its CRLF line ends",
    )
}

/// The call was over before the step was.
pub fn over(session: &Session) -> Option<Failure> {
    if !session.is_over() {
        return None;
    }
    let reason = session.close_reason.as_deref().unwrap_or("unknown");
    let detail = session.close_detail.as_deref().map(|detail| format!(": {}", shown(detail))).unwrap_or_default();
    let found = format!("the bridge ended the call, closeReason {reason}{detail}");
    let (cause, advice) = match reason {
        "agent_dns" => (
            "the bridge does not find the model's host",
            "`getent hosts` of the host in OPENAI_REALTIME_URL must print an address; voice-media-bridge check-config",
        ),
        "agent_tcp" => (
            "the bridge does not reach the model's host",
            "let the machine connect out to it (TCP 443 as a rule), and start it if it is yours; voice-media-bridge check-config",
        ),
        "agent_tls" => (
            "the model's certificate is refused",
            "voice-media-bridge check-config names the reason; see the clock and ca-certificates",
        ),
        "agent_http" => (
            "the model's server refuses the session, mostly for the key",
            "OPENAI_API_KEY and OPENAI_REALTIME_MODEL; voice-media-bridge check-config --deep asks the server",
        ),
        "agent_session" | "agent_closed" => (
            "the model refuses the session or ended it",
            "OPENAI_REALTIME_MODEL, and the account's limits; the words above are the model's",
        ),
        "ice_timeout" | "ice_lost" | "peer_silent" => {
            ("UDP does not get through", "let UDP in and out between the bridge's media ports and the caller")
        }
        "dtls_timeout" | "dtls_failed" => (
            "the DTLS handshake does not come through whole",
            "see the MTU on the way (1500, or set it on the interface)",
        ),
        "server_stopping" => ("the bridge was stopped meanwhile", "try again"),
        _ => ("a fault of the bridge", "journalctl -u voice-media-bridge"),
    };
    Some(Failure::new(found, cause, advice))
}

/// No connectivity check came.
pub fn no_check(patience: Duration, caller: IpAddr, session: Option<&Session>) -> Failure {
    let sent =
        session.map_or_else(String::new, |session| format!("; the bridge has sent {}", session.peer.datagrams_sent));
    Failure::new(
        format!("no UDP packet of the bridge came to {caller} within {} s{sent}", patience.as_secs()),
        "a firewall drops UDP between the bridge's media ports and the caller, or the bridge has no route to that address",
        "`nft list ruleset` (or iptables -S) on both machines: let UDP through; --relay-ip names another address of this machine",
    )
}

/// Checks came, and their answers did not get back.
pub fn no_pair(patience: Duration, session: Option<&Session>) -> Failure {
    let got = session
        .map_or_else(String::new, |session| format!("; the bridge has received {}", session.peer.datagrams_received));
    Failure::new(
        format!("UDP packets of the bridge come, and no ICE pair within {} s{got}", patience.as_secs()),
        "UDP from the caller back to the bridge's media port is dropped, or a NAT changes the port on the way",
        "let UDP in to the bridge's media ports (BRIDGE_MEDIA_PORTS); a NAT must leave the ports unchanged",
    )
}

/// No DTLS.
pub fn no_dtls(patience: Duration) -> Failure {
    Failure::new(
        format!("the DTLS handshake did not end within {} s", patience.as_secs()),
        "large UDP packets are dropped: a tunnel or VPN with a small MTU",
        "`ping -M do -s 1400` to the caller must succeed; set the MTU of the interface, or let ICMP \"fragmentation needed\" through",
    )
}

/// No RTP.
pub fn no_media(waited: Duration, session: Option<&Session>) -> Failure {
    let found = format!("no RTP packet of the bridge within {:.0} s of DTLS", waited.as_secs_f64());
    if session.is_some_and(|session| session.state == "held") {
        return Failure::new(
            found,
            "media is held back: BRIDGE_START_DELAY_MS",
            "lower it: WhatsApp hangs up after 20 s without media",
        );
    }
    Failure::new(
        found,
        "the bridge sends none, or it is lost on the way",
        "journalctl -u voice-media-bridge; `voice-media-bridge top` shows whether its cores are free",
    )
}

/// No voice.
pub fn no_voice(patience: Duration, session: Option<&Session>) -> Failure {
    let within = format!("nothing but silence within {} s", patience.as_secs());
    let (deltas, played_ms) = session.map_or((0, 0), |session| (session.agent.deltas, session.downlink.played_ms));
    if deltas == 0 {
        return Failure::new(
            format!("{within}; the model has sent no audio"),
            "the model is connected and does not greet, or is not connected yet",
            "`voice-media-bridge check-config --deep` opens a session; journalctl -u voice-media-bridge has a line when a model session is live",
        );
    }
    Failure::new(
        format!("{within}, though the model has sent audio ({deltas} deltas, {played_ms} ms played)"),
        "what the model sends is silence, or is lost between bridge and caller",
        "OPENAI_REALTIME_URL must name a server that sends PCM of 24 kHz",
    )
}

/// The caller is not heard.
pub fn not_heard(session: Option<&Session>) -> Failure {
    match session {
        Some(session) if session.uplink.packets == 0 => Failure::new(
            "none of the caller's RTP packets came to the bridge",
            "UDP from the caller to the bridge is dropped, though checks get through: a firewall that lets few packets pass",
            "let UDP in to the bridge's media ports without a rate limit",
        ),
        Some(session) => Failure::new(
            format!(
                "the bridge has {} packets of the caller, and {} appends went to the model",
                session.uplink.packets, session.agent.appends
            ),
            "the model does not take audio: its session is not live, or its connection is stuck",
            "journalctl -u voice-media-bridge; `voice-media-bridge check-config --deep`",
        ),
        None => no_answer("the bridge does not tell about the call"),
    }
}

/// What passed within a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Passed {
    /// Packets of the bridge that came.
    pub heard: u64,
    /// Those that did not.
    pub heard_lost: u64,
    /// Packets of the caller.
    pub spoken: u64,
    /// Those that the bridge did not get.
    pub spoken_lost: u64,
}

impl Passed {
    /// The difference of two looks.
    pub fn between(before: (&Counts, &Session), after: (&Counts, &Session)) -> Self {
        let (first, last) = (&before.0.packets, &after.0.packets);
        Self {
            heard: last.received - first.received,
            heard_lost: last.lost.saturating_sub(first.lost),
            spoken: last.sent - first.sent,
            spoken_lost: after.1.uplink.lost.saturating_sub(before.1.uplink.lost),
        }
    }

    /// In words, or what is wrong with it.
    pub fn judged(&self, window: Duration) -> Result<String, Failure> {
        let Self { heard, heard_lost, spoken, spoken_lost } = *self;
        let found =
            format!("{heard} packets of the bridge ({heard_lost} lost), {spoken} of the caller ({spoken_lost} lost)");
        let few = (window.as_secs_f64() / 0.02 * FLOW_SHARE_MIN) as u64;
        if heard_lost > 0 || spoken_lost > 0 {
            return Err(Failure::new(
                found,
                "packets are dropped on the way, or in a full socket buffer of a machine that is too busy",
                "`nstat -az UdpRcvbufErrors` rises in the latter case: raise net.core.rmem_max, free the cores; else look at the network between",
            ));
        }
        if heard < few || spoken < few {
            return Err(Failure::new(
                found,
                "the stream stops and goes: the bridge or this machine stalls",
                "`voice-media-bridge top` shows the load of the cores; see whether the machine is short of CPU time (steal in `vmstat 1`)",
            ));
        }
        Ok(found)
    }
}

/// Packets on their beat, in words, or not.
pub fn timing(counts: &Counts, session: &Session) -> Result<String, Failure> {
    let Some(deviation) = counts.deviation else {
        return Err(Failure::new("no two packets followed each other", "all others are lost", "see the step before"));
    };
    let ms = |us: u64| us as f64 / 1e3;
    let late = session.tick_late_p99_us();
    let own = late.map_or_else(String::new, |us| format!("; frames leave {:.1} ms late (p99)", ms(us)));
    let found =
        format!("off the beat by {:.1} ms (median), {:.1} ms (p99){own}", ms(deviation.p50_us), ms(deviation.p99_us));
    if deviation.p99_us <= DEVIATION_US_MAX {
        return Ok(found);
    }
    Err(if late.is_some_and(|us| us > TICK_LATE_US_MAX) {
        Failure::new(
            found,
            "the bridge's cores are not free when frames are due",
            "`voice-media-bridge top` shows their load; stop what else runs there, or give the bridge cores of its own",
        )
    } else {
        Failure::new(
            found,
            "the network between, or this machine, delays packets",
            "run doctor on the bridge's machine: if all is well there, it is the network",
        )
    })
}

/// What `DELETE` came to, if not to 200.
pub fn hangup(status: u16, body: &str) -> Option<Failure> {
    (status != 200).then(|| {
        Failure::new(
            Refusal::parse(body).found(status),
            "the bridge does not know the call any more",
            "journalctl -u voice-media-bridge",
        )
    })
}

/// What is remembered of the call, in words, or not.
pub fn record(session: Option<&Session>) -> Result<String, Failure> {
    match session {
        Some(session) if session.is_over() && session.close_reason.as_deref() == Some("hangup") => {
            Ok("ended, closeReason hangup".into())
        }
        Some(session) => Err(Failure::new(
            format!(
                "state {}, closeReason {}",
                shown(&session.state),
                shown(session.close_reason.as_deref().unwrap_or("none"))
            ),
            "the call ended in another way than by being hung up",
            "journalctl -u voice-media-bridge has the call's last line",
        )),
        None => Err(no_answer("the bridge does not remember the call")),
    }
}

/// Words of others, fit for a line of text.
fn shown(words: &str) -> String {
    words.chars().filter(|c| !c.is_control()).take(WORDS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::report::Packets;
    use crate::stats::Histogram;

    const CALLER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);
    const PATIENCE: Duration = Duration::from_secs(5);

    #[track_caller]
    fn says(failure: &Failure, words: &[&str]) {
        let all = format!("{} | {} | {}", failure.found, failure.cause, failure.advice);
        assert!(!all.contains('\n') && !failure.cause.is_empty() && !failure.advice.is_empty(), "{all}");
        for word in words {
            assert!(all.contains(word), "{word:?} is not in {all:?}");
        }
    }

    fn session(text: &str) -> Session {
        Session::parse(text).unwrap()
    }

    #[test]
    fn a_refusal_is_told_with_its_code_and_the_setting_behind_it() {
        for (status, body, words) in [
            (400, r#"{"error":"No candidate.","code":"offer_no_candidate"}"#, ["127.0.0.1", "BRIDGE_ALLOW_PRIVATE"]),
            (503, r#"{"error":"Full.","code":"full"}"#, ["503 full: Full.", "BRIDGE_MAX_CALLS"]),
            (503, r#"{"error":"Busy.","code":"overloaded"}"#, ["cores", "top"]),
            (503, r#"{"error":"Later.","code":"draining"}"#, ["stopped or replaced", "systemctl"]),
            (503, r#"{"error":"None.","code":"no_port"}"#, ["media port", "BRIDGE_MEDIA_PORTS"]),
            (401, r#"{"error":"No.","code":"unauthorized"}"#, ["another token", "--token"]),
            (500, "<html>", ["500, without a word", "--version"]),
        ] {
            says(&refused(status, body, CALLER), &words);
        }
        assert_eq!((token(200, "{}"), ready(200, "{}"), hangup(200, "{}")), (None, None, None));
        says(&token(401, "").unwrap(), &["BRIDGE_API_TOKEN"]);
        says(&token(404, "").unwrap(), &["proxy", "/api/sessions"]);
        says(&ready(503, r#"{"error":"","code":"draining"}"#).unwrap(), &["draining"]);
    }

    #[test]
    fn a_call_that_ended_by_itself_is_told_by_its_close_reason() {
        assert_eq!(over(&session(r#"{"state":"active"}"#)), None);
        for (reason, word) in [
            ("agent_dns", "getent hosts"),
            ("agent_tcp", "connect out"),
            ("agent_tls", "ca-certificates"),
            ("agent_http", "OPENAI_API_KEY"),
            ("agent_session", "OPENAI_REALTIME_MODEL"),
            ("ice_timeout", "UDP"),
            ("dtls_timeout", "MTU"),
            ("internal_error", "journalctl"),
        ] {
            let text = format!(r#"{{"state":"ended","closeReason":"{reason}","closeDetail":"HTTP 401\n"}}"#);
            says(&over(&session(&text)).unwrap(), &[reason, ": HTTP 401", word]);
        }
    }

    #[test]
    fn silence_is_told_from_a_model_that_says_nothing_and_a_held_start_from_lost_media() {
        let silent = session(r#"{"state":"active","agent":{"deltas":0}}"#);
        says(&no_voice(PATIENCE, Some(&silent)), &["sent no audio", "--deep"]);
        let lost = session(r#"{"state":"active","agent":{"deltas":9},"downlink":{"playedMs":700}}"#);
        says(&no_voice(PATIENCE, Some(&lost)), &["9 deltas, 700 ms", "24 kHz"]);
        says(&no_media(PATIENCE, Some(&session(r#"{"state":"held"}"#))), &["BRIDGE_START_DELAY_MS"]);
        says(&no_media(PATIENCE, Some(&silent)), &["top"]);
        says(&not_heard(Some(&silent)), &["none of the caller's"]);
        says(&not_heard(Some(&session(r#"{"uplink":{"packets":5}}"#))), &["5 packets", "0 appends"]);
        says(
            &no_check(PATIENCE, CALLER, Some(&session(r#"{"peer":{"datagramsSent":7}}"#))),
            &["UDP", "has sent 7", "--relay-ip"],
        );
        says(
            &no_pair(PATIENCE, Some(&session(r#"{"peer":{"datagramsReceived":0}}"#))),
            &["received 0", "BRIDGE_MEDIA_PORTS"],
        );
        says(&no_dtls(PATIENCE), &["MTU"]);
    }

    #[test]
    fn a_stream_is_held_to_its_beat_and_to_all_of_its_packets() {
        let window = Duration::from_secs(5);
        let passed = Passed { heard: 250, heard_lost: 0, spoken: 248, spoken_lost: 0 };
        assert_eq!(passed.judged(window), Ok("250 packets of the bridge (0 lost), 248 of the caller (0 lost)".into()));
        for (passed, word) in [
            (Passed { heard_lost: 1, ..passed }, "rmem_max"),
            (Passed { spoken_lost: 1, ..passed }, "rmem_max"),
            (Passed { heard: 200, ..passed }, "stops and goes"),
            (Passed { spoken: 0, ..passed }, "stops and goes"),
        ] {
            says(&passed.judged(window).unwrap_err(), &[word]);
        }
        let counts = |received, sent| Counts {
            packets: Packets { received, sent, lost: 2, ..Packets::default() },
            deviation: None,
        };
        let uplink = |lost| Session { uplink: Uplink { packets: 0, lost }, ..Session::default() };
        let between = Passed::between((&counts(10, 20), &uplink(1)), (&counts(110, 130), &uplink(4)));
        assert_eq!(between, Passed { heard: 100, heard_lost: 0, spoken: 110, spoken_lost: 3 });
    }

    #[test]
    fn late_packets_are_the_bridges_or_the_networks() {
        let deviation = |ms| {
            let mut histogram: Histogram = Histogram::new();
            histogram.record(Duration::from_millis(ms));
            Counts { deviation: histogram.percentiles(), ..Counts::default() }
        };
        let late = |us: u64| session(&format!(r#"{{"latency":[{{"stage":"tick_late","p99Us":{us}}}]}}"#));
        assert!(timing(&deviation(2), &late(300)).is_ok_and(|found| found.contains("0.3 ms late")));
        says(&timing(&deviation(40), &late(9_000)).unwrap_err(), &["bridge's cores"]);
        says(&timing(&deviation(40), &late(300)).unwrap_err(), &["network"]);
        says(&timing(&Counts::default(), &late(300)).unwrap_err(), &["no two packets"]);
    }

    #[test]
    fn a_call_that_was_hung_up_is_remembered_as_such() {
        assert!(record(Some(&session(r#"{"state":"ended","closeReason":"hangup"}"#))).is_ok());
        says(&record(Some(&session(r#"{"state":"ended","closeReason":"ice_lost"}"#))).unwrap_err(), &["ice_lost"]);
        says(&record(None).unwrap_err(), &["does not remember"]);
    }

    #[test]
    fn the_way_to_the_api_ends_at_a_step_with_its_way_out() {
        for (stage, word) in [(Stage::Dns, "getent hosts"), (Stage::Tcp, "ss -ltn"), (Stage::Tls, "openssl s_client")] {
            says(&unreachable(stage, "no\nway", "bridge.example", 8080), &["noway", word]);
        }
    }
}
