//! A client of rustls on one side, the wire on the other, time as an argument.

use std::time::Duration;

use super::*;
use crate::http::{HEAD_TIME_MAX, IDLE_TIME_MAX, WRITE_TIME_MAX};
use crate::tls::testing::Identity;
use crate::tls::{ClientSession, Tls};

const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";
const LAST: &[u8] = b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";

/// One connection and what became of it.
#[allow(clippy::struct_excessive_bools, reason = "each is one thing that was seen")]
struct Rig {
    wire: Wire,
    now: Instant,
    client: ClientSession,
    /// Bytes of the wire that the client has not seen.
    sealed: Vec<u8>,
    /// What the client read.
    heard: Vec<u8>,
    client_closed: bool,
    /// The kernel takes what is written at once.
    takes: bool,
    unwritten: usize,
    requests: usize,
    answered: usize,
    body: Vec<u8>,
    shut: bool,
    closed: bool,
    news: Vec<News>,
}

impl Rig {
    fn new() -> Self {
        let identity = Identity::until(2100);
        Self::with(&identity.acceptor(), &identity.client())
    }

    fn with(acceptor: &Acceptor, tls: &Tls) -> Self {
        let now = Instant::now();
        Self {
            wire: Wire::new(now, Some(acceptor), Bodies::default()),
            now,
            client: ClientSession::new(tls, "localhost").unwrap(),
            sealed: Vec::new(),
            heard: Vec::new(),
            client_closed: false,
            takes: true,
            unwritten: 0,
            requests: 0,
            answered: 0,
            body: b"{}".to_vec(),
            shut: false,
            closed: false,
            news: Vec::new(),
        }
    }

    /// Does what the wire wants, and answers requests.
    fn pump(&mut self) {
        while let Some(event) = self.wire.poll(self.now) {
            assert!(!self.closed, "{event:?} after the last event");
            match event {
                Event::Request(_) => {
                    self.requests += 1;
                    self.wire.respond(self.now, Response::new(200, "application/json", self.body.clone()));
                }
                Event::Bad(problem) => {
                    self.wire.respond(self.now, Response::new(problem.status, "text/plain", Vec::new()));
                }
                Event::Answered => self.answered += 1,
                Event::Write(bytes) => {
                    assert!(!self.shut, "a write after the end");
                    self.sealed.extend(bytes);
                    self.unwritten += 1;
                    if self.takes {
                        self.take();
                    }
                }
                Event::Read(_) => {}
                Event::Shutdown => {
                    assert!(!self.shut, "ended twice");
                    self.shut = true;
                }
                Event::Close => self.closed = true,
            }
        }
    }

    fn take(&mut self) {
        for _ in 0..std::mem::take(&mut self.unwritten) {
            self.wire.written(self.now);
        }
    }

    /// Bytes of the client reach the wire.
    fn receive(&mut self, bytes: &[u8]) {
        match self.wire.received(self.now, bytes) {
            News::None => {}
            news => self.news.push(news),
        }
        self.pump();
    }

    /// The client reads what there is, and what it has to say beside `plain`.
    fn client(&mut self, plain: &[u8]) -> Vec<u8> {
        let sealed = std::mem::take(&mut self.sealed);
        self.client_closed |= self.client.open(&sealed, &mut self.heard).expect("a server that can be understood");
        let mut out = Vec::new();
        self.client.seal(plain, &mut out);
        out
    }

    /// Both talk until neither has more to say.
    fn talk(&mut self, plain: &[u8]) {
        let mut out = self.client(plain);
        while !out.is_empty() {
            self.receive(&out);
            out = self.client(&[]);
        }
    }

    fn secured() -> Self {
        let mut rig = Self::new();
        rig.talk(&[]);
        assert_eq!(rig.news, [News::Secured { resumed: false }]);
        rig
    }

    fn wait(&mut self, time: Duration) {
        self.now += time;
        self.wire.timed_out(self.now);
        self.pump();
    }

    fn end(&mut self) {
        self.wire.ended(self.now);
        self.pump();
    }

    fn heard(&self) -> &str {
        std::str::from_utf8(&self.heard).unwrap()
    }
}

#[test]
fn a_request_is_answered_however_its_bytes_are_cut() {
    let identity = Identity::until(2100);
    let (acceptor, tls) = (identity.acceptor(), identity.client());
    // Two flights: the hello; the client's end of the handshake with a request behind it.
    let mut at = 0;
    loop {
        let mut rig = Rig::with(&acceptor, &tls);
        let hello = rig.client(&[]);
        let cut = at.min(hello.len());
        rig.receive(&hello[..cut]);
        rig.receive(&hello[cut..]);
        let second = rig.client(LAST);
        let cut = (at - cut).min(second.len());
        rig.receive(&second[..cut]);
        rig.receive(&second[cut..]);
        rig.talk(&[]);
        assert!(rig.heard().ends_with("\r\n\r\n{}"), "cut at {at}: {:?}", rig.news);
        assert!(rig.client_closed && rig.shut && !rig.closed && (rig.requests, rig.answered) == (1, 1), "cut at {at}");
        if at == hello.len() + second.len() {
            break;
        }
        at += 1;
    }
    let mut rig = Rig::with(&acceptor, &tls);
    for byte in rig.client(&[]) {
        rig.receive(&[byte]);
    }
    for byte in rig.client(LAST) {
        rig.receive(&[byte]);
    }
    rig.talk(&[]);
    assert_eq!(rig.answered, 1, "byte by byte");
}

#[test]
fn a_connection_carries_one_request_after_the_other() {
    let mut rig = Rig::secured();
    for answered in 1..=3 {
        rig.talk(GET);
        assert_eq!((rig.requests, rig.answered), (answered, answered));
    }
    rig.talk(&[GET, GET].concat());
    assert_eq!((rig.requests, rig.answered), (5, 5), "two in one record");
}

#[test]
fn an_answer_counts_as_written_when_its_ciphertext_is() {
    let mut rig = Rig::new();
    rig.takes = false;
    rig.talk(&[]);
    rig.talk(GET);
    assert!(
        rig.heard().ends_with("{}") && rig.answered == 0 && rig.unwritten >= 2,
        "the handshake's are unwritten too"
    );
    rig.wire.written(rig.now);
    rig.pump();
    assert_eq!(rig.answered, 0, "that was the handshake's");
    rig.unwritten -= 1;
    rig.take();
    rig.pump();
    assert_eq!(rig.answered, 1);
}

#[test]
fn a_big_answer_comes_whole_and_is_one_answer() {
    let mut rig = Rig::secured();
    rig.body = (0..12_000_000u32).map(|n| (n % 251) as u8).collect();
    rig.talk(GET);
    let body = rig.heard.split_off(rig.heard.len() - rig.body.len());
    assert!(body == rig.body, "the body differs");
    assert_eq!(rig.answered, 1);
}

#[test]
fn an_end_of_ours_says_so_inside_tls_first() {
    let mut rig = Rig::secured();
    rig.talk(LAST);
    assert!(rig.client_closed && rig.shut && !rig.closed, "the last answer");
    rig.end();
    assert!(rig.closed);

    let mut rig = Rig::secured();
    rig.talk(GET);
    rig.wait(IDLE_TIME_MAX);
    rig.talk(&[]);
    assert!(rig.client_closed && rig.shut && !rig.closed, "an idle connection");
    rig.wait(DRAIN_TIME_MAX);
    assert!(rig.closed && rig.wire.deadline().is_none(), "whatever the client does");
}

#[test]
fn a_client_that_takes_leave_gets_an_answer_to_that() {
    let mut rig = Rig::secured();
    rig.talk(GET);
    rig.client.close();
    let bye = rig.client(&[]);
    rig.receive(&bye);
    assert!(rig.shut && !rig.closed);
    rig.talk(&[]);
    assert!(rig.client_closed);
    rig.end();
    assert!(rig.closed);
}

#[test]
fn a_stream_that_ends_without_the_end_of_tls_ends_the_connection() {
    let mut rig = Rig::secured();
    rig.end();
    assert!(rig.closed);
    let mut rig = Rig::secured();
    let part = rig.client(&GET[..10]);
    rig.receive(&part);
    rig.end();
    rig.talk(&[]);
    assert!(rig.heard().starts_with("HTTP/1.1 400 "), "a request cut short: {}", rig.heard());
    let mut rig = Rig::new();
    let hello = rig.client(&[]);
    rig.receive(&hello);
    rig.end();
    assert!(rig.closed, "in the handshake");
}

#[test]
fn a_handshake_that_stalls_is_cut_off_with_the_time_of_a_head() {
    let mut rig = Rig::new();
    let hello = rig.client(&[]);
    rig.receive(&hello[..hello.len() / 2]);
    assert_eq!(rig.wire.deadline(), Some(rig.now + HEAD_TIME_MAX));
    rig.wait(HEAD_TIME_MAX);
    assert!(rig.closed && rig.sealed.is_empty() && rig.wire.deadline().is_none());
}

#[test]
fn a_head_that_stalls_inside_tls_is_told_so() {
    let mut rig = Rig::secured();
    let part = rig.client(b"GET / HT");
    rig.receive(&part);
    rig.wait(HEAD_TIME_MAX);
    rig.talk(&[]);
    assert!(rig.heard().starts_with("HTTP/1.1 408 ") && rig.client_closed, "{}", rig.heard());
}

#[test]
fn garbage_ends_the_connection_and_broken_tls_gets_an_alert() {
    let mut broken = Rig::new().client(&[]);
    broken[5] = 0xff; // no such message
    for (bytes, is_tls) in [
        (&broken[..], true),
        (b"\x16\x03\x01\x00\x04\xff\xff\xff\xff", false), // of 16 MB, it says
        (b"\x16\x03\x01\x00\x04\x01\x00\x00\x00", true),
        (&[0x80; 64], false),
        (&[0; 64], false),
    ] {
        let mut rig = Rig::new();
        rig.receive(bytes);
        assert!(matches!(&rig.news[..], [News::Failed { handshaking: true, .. }]), "{:?}", rig.news);
        // Who speaks no TLS is owed no alert.
        assert!(!is_tls || rig.sealed.first() == Some(&21), "{bytes:02x?}: {:?}", rig.news);
        assert!(rig.shut && !rig.closed, "{:?}", rig.news);
        rig.receive(&[0; 4096]);
        rig.end();
        assert!(rig.closed);
    }
    let mut rig = Rig::secured();
    rig.receive(&[0x17, 3, 3, 0, 20, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20]);
    assert!(matches!(&rig.news[1..], [News::Failed { handshaking: false, .. }]), "{:?}", rig.news);
    assert!(rig.shut);
    rig.receive(&vec![0; DRAIN_BYTES_MAX]);
    assert!(rig.closed, "what is thrown away is bounded");
}

#[test]
fn plain_http_is_told_to_speak_tls_in_words_that_it_can_read() {
    let mut rig = Rig::new();
    rig.receive(GET);
    assert_eq!(rig.news, [News::NotTls]);
    rig.wire.refuse(rig.now, Response::new(400, "application/json", b"use https://".to_vec()));
    rig.pump();
    let text = String::from_utf8(std::mem::take(&mut rig.sealed)).unwrap();
    assert!(text.starts_with("HTTP/1.1 400 ") && text.ends_with("use https://") && rig.shut, "{text}");
    rig.end();
    assert!(rig.closed);
}

#[test]
fn a_connection_that_is_refused_unasked_hears_why_once_it_is_secure() {
    let mut rig = Rig::new();
    rig.wire.refuse(rig.now, Response::new(503, "application/json", b"too many".to_vec()));
    rig.pump();
    assert!(rig.sealed.is_empty() && !rig.shut);
    rig.talk(&[]);
    assert!(rig.heard().starts_with("HTTP/1.1 503 ") && rig.heard().ends_with("too many"), "{}", rig.heard());
    assert!(rig.client_closed && rig.shut && rig.answered == 1);

    let mut rig = Rig::new();
    rig.wire.refuse(rig.now, Response::new(503, "application/json", b"too many".to_vec()));
    rig.pump();
    rig.receive(GET);
    assert!(rig.closed, "plain HTTP has no such luck");
    let mut rig = Rig::new();
    rig.wire.refuse(rig.now, Response::new(503, "application/json", b"too many".to_vec()));
    rig.pump();
    rig.wait(WRITE_TIME_MAX);
    assert!(rig.closed, "nor has silence");
}

#[test]
fn a_client_that_was_here_before_resumes() {
    let identity = Identity::until(2100);
    let (acceptor, tls) = (identity.acceptor(), identity.client());
    for resumed in [false, true] {
        let mut rig = Rig::with(&acceptor, &tls);
        rig.talk(&[]);
        assert_eq!(rig.news, [News::Secured { resumed }]);
    }
}

#[test]
fn mutated_bytes_are_survived() {
    let identity = Identity::until(2100);
    let (acceptor, tls) = (identity.acceptor(), identity.client());
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut random = |bound: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % bound as u64) as usize
    };
    let mut answered = 0;
    for round in 0..1_500 {
        let mut rig = Rig::with(&acceptor, &tls);
        let mut flights = 0;
        let mut bytes = rig.client(&[]);
        while !bytes.is_empty() && !rig.closed {
            // Which flight is hit: the hello, or what is encrypted.
            if flights == round % 3 {
                match random(3) {
                    0 => {
                        let at = random(bytes.len());
                        bytes[at] ^= 1 << random(8);
                    }
                    1 => bytes.truncate(random(bytes.len())),
                    _ => bytes.insert(random(bytes.len()), random(256) as u8),
                }
            }
            rig.receive(&bytes);
            flights += 1;
            let sealed = std::mem::take(&mut rig.sealed);
            if rig.client.open(&sealed, &mut rig.heard).is_err() || flights > 4 {
                break;
            }
            bytes.clear();
            let plain = if rig.client.is_handshaking() { &[][..] } else { GET };
            rig.client.seal(plain, &mut bytes);
        }
        answered += usize::from(rig.answered > 0);
        rig.wait(HEAD_TIME_MAX);
        rig.wait(IDLE_TIME_MAX);
        rig.end();
        rig.wait(DRAIN_TIME_MAX);
        assert!(rig.closed, "every connection ends: {:?}", rig.news);
    }
    assert!(answered > 100, "those that are hit late have had an answer: {answered}");
}
