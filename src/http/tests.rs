//! Behaviour of a connection towards clients that mean well, and its deadlines.

use std::time::{Duration, Instant};

use super::*;

#[expect(clippy::struct_excessive_bools, reason = "switches of a test bench")]
/// A client's end of a connection whose server answers every request with `METHOD segments… body`, and whose kernel
/// writes at once unless told otherwise.
pub(super) struct Wire {
    pub(super) connection: Connection,
    pub(super) now: Instant,
    pub(super) out: String,
    pub(super) requests: Vec<Request>,
    pub(super) problems: Vec<Problem>,
    pub(super) reading: bool,
    pub(super) shut: bool,
    pub(super) closed: bool,
    /// Requests stay unanswered while this is set.
    pub(super) slow_owner: bool,
    /// Writes stay unwritten while this is set.
    pub(super) slow_kernel: bool,
    unwritten: u32,
}

impl Wire {
    pub(super) fn new() -> Self {
        Self::taking(Bodies::default())
    }

    /// With other bodies than the usual ones.
    pub(super) fn taking(bodies: Bodies) -> Self {
        let now = Instant::now();
        Self {
            connection: Connection::with_bodies(now, bodies),
            now,
            out: String::new(),
            requests: Vec::new(),
            problems: Vec::new(),
            reading: true,
            shut: false,
            closed: false,
            slow_owner: false,
            slow_kernel: false,
            unwritten: 0,
        }
    }

    pub(super) fn send(&mut self, bytes: impl AsRef<[u8]>) -> &mut Self {
        self.connection.received(self.now, bytes.as_ref());
        self.run();
        self
    }

    pub(super) fn end(&mut self) -> &mut Self {
        self.connection.ended(self.now);
        self.run();
        self
    }

    pub(super) fn wait(&mut self, time: Duration) -> &mut Self {
        self.now += time;
        self.connection.timed_out(self.now);
        self.run();
        self
    }

    pub(super) fn run(&mut self) {
        while let Some(event) = self.connection.poll() {
            assert!(!self.closed, "{event:?} after the close");
            match event {
                Event::Request(request) => {
                    self.requests.push(*request);
                    if !self.slow_owner {
                        self.answer();
                    }
                }
                Event::Bad(problem) => {
                    self.problems.push(problem);
                    self.connection.respond(self.now, Response::new(problem.status, "text/plain", b"bad".to_vec()));
                }
                Event::Answered => {}
                Event::Write(bytes) => {
                    assert!(!self.shut, "a write after the shutdown");
                    self.out.push_str(std::str::from_utf8(&bytes).unwrap());
                    self.unwritten += 1;
                }
                Event::Read(on) => {
                    assert_ne!(self.reading, on, "told twice");
                    self.reading = on;
                }
                Event::Shutdown => self.shut = true,
                Event::Close => self.closed = true,
            }
            while self.unwritten > 0 && !self.slow_kernel {
                self.unwritten -= 1;
                self.connection.written(self.now);
            }
        }
    }

    pub(super) fn answer(&mut self) {
        let request = self.requests.last().unwrap();
        let text = format!(
            "{} {:?} {}",
            request.head.method.label(),
            request.head.target.segments,
            String::from_utf8_lossy(&request.body)
        );
        self.connection.respond(self.now, Response::new(200, "text/plain", text.into_bytes()));
    }

    fn kernel_writes(&mut self) {
        self.slow_kernel = false;
        while self.unwritten > 0 {
            self.unwritten -= 1;
            self.connection.written(self.now);
        }
        self.run();
    }

    pub(super) fn statuses(&self) -> Vec<&str> {
        self.out.match_indices("HTTP/1.1 ").map(|(at, _)| &self.out[at + 9..at + 12]).collect()
    }
}

const GET: &str = "GET /health HTTP/1.1\r\nHost: h\r\n\r\n";

#[test]
fn requests_follow_each_other_on_one_connection() {
    let mut wire = Wire::new();
    wire.send(GET).send("POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhello").send(GET);
    assert_eq!(wire.statuses(), ["200"; 3]);
    assert_eq!(wire.requests[1].body, b"hello");
    assert!(!wire.out.contains("Connection:") && !wire.closed && !wire.shut);
}

#[test]
fn a_request_reads_the_same_however_it_is_cut_up() {
    let text = "POST /api/s HTTP/1.1\r\nHost: h:1\r\nTransfer-Encoding: Chunked\r\nX: \t y\u{e9} \r\n\r\n\
                5\r\nhello\r\n00A;ext=\"v\"\r\n, 10 bytes\r\n0\r\nTrailer: t\r\n\r\nGET / HTTP/1.0\r\n\r\n";
    for cut in 1..=text.len() {
        let mut wire = Wire::new();
        text.as_bytes().chunks(cut).for_each(|bytes| _ = wire.send(bytes));
        assert_eq!(wire.problems, [], "cut into {cut}");
        assert_eq!(wire.requests[0].body, b"hello, 10 bytes");
        assert_eq!(wire.requests[0].head.header("x"), Ok(Some("y\u{e9}")));
        assert_eq!(wire.requests[0].head.header("trailer"), Ok(None), "a trailer became a header");
        assert_eq!(wire.requests[1].head.target, Target::default());
        assert!(wire.shut, "HTTP/1.0 closes");
    }
}

#[test]
fn pipelined_requests_are_answered_in_order_one_at_a_time() {
    let mut wire = Wire::new();
    wire.slow_kernel = true;
    wire.send("GET /1 HTTP/1.1\r\nHost: h\r\n\r\nGET /2 HTTP/1.1\r\nHost: h\r\n\r\nGET /3 HTTP/1.1\r\nHost: h\r\n\r\n");
    assert_eq!(wire.requests.len(), 1, "the second waits until the first answer is written");
    wire.kernel_writes();
    let order: Vec<_> = wire.requests.iter().map(|request| request.head.target.segments[0].as_str()).collect();
    assert_eq!(order, ["1", "2", "3"]);
}

#[test]
fn a_client_that_pipelines_without_end_is_not_read() {
    let mut wire = Wire::new();
    wire.slow_owner = true;
    wire.send(GET);
    let flood = GET.repeat(PIPELINE_BYTES_MAX / GET.len() + 1);
    wire.send(&flood);
    assert!(!wire.reading);
    wire.slow_owner = false;
    wire.answer();
    wire.run();
    assert!(wire.reading, "read again once the buffer is worked off");
    assert_eq!(wire.statuses().len(), 2 + PIPELINE_BYTES_MAX / GET.len());
}

#[test]
fn head_is_answered_without_the_body_it_counts() {
    let mut wire = Wire::new();
    wire.send("HEAD /x HTTP/1.1\r\nHost: h\r\n\r\n").send(GET);
    let (head, rest) = wire.out.split_once("\r\n\r\n").unwrap();
    assert!(head.contains("Content-Length: 11"), "{head}");
    assert!(rest.starts_with("HTTP/1.1 200"), "{rest}");
}

#[test]
fn old_clients_and_those_that_say_close_are_closed_others_kept() {
    for (request, kept) in [
        ("GET / HTTP/1.0\r\n\r\n", false),
        ("GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n", true),
        ("GET / HTTP/1.1\r\nHost: h\r\nConnection: te, Close\r\n\r\n", false),
        ("GET / HTTP/1.1\r\nHost: h\r\nConnection: keep-alive\r\nConnection: close\r\n\r\n", false),
        ("GET / HTTP/1.1\r\nHost: h\r\nConnection: te\r\n\r\n", true),
    ] {
        let mut wire = Wire::new();
        wire.send(request);
        assert_eq!((wire.statuses(), wire.shut), (vec!["200"], !kept), "{request:?}");
        assert_eq!(wire.out.contains("Connection: close"), !kept, "{request:?}");
    }
    let mut wire = Wire::new();
    wire.send("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
    assert!(wire.out.contains("Connection: keep-alive"));
}

#[test]
fn a_client_that_waits_for_100_continue_is_told_to() {
    let head = "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\nExpect: 100-Continue\r\n\r\n";
    let mut wire = Wire::new();
    wire.send(head);
    assert_eq!(wire.out, "HTTP/1.1 100 Continue\r\n\r\n");
    wire.send("hi");
    assert_eq!((wire.statuses(), wire.requests[0].body.as_slice()), (vec!["100", "200"], &b"hi"[..]));

    let mut wire = Wire::new();
    wire.send(format!("{head}hi"));
    assert_eq!(wire.statuses(), ["200"], "the body is here already");
    let mut wire = Wire::new();
    wire.send("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\nExpect: magic\r\n\r\nhi");
    assert_eq!(wire.statuses(), ["417"]);
    let mut wire = Wire::new();
    wire.send("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 999999\r\nExpect: 100-continue\r\n\r\n");
    assert_eq!(wire.statuses(), ["413"], "refused before it is sent");
}

#[test]
fn an_answer_after_a_continue_still_on_its_way_counts_as_written_last() {
    let mut wire = Wire::new();
    wire.slow_kernel = true;
    wire.send("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n").send("hi");
    wire.connection.written(wire.now);
    assert!(wire.connection.is_busy());
    wire.connection.written(wire.now);
    assert!(!wire.connection.is_busy());
}

#[test]
fn a_client_that_ends_its_side_gets_all_its_answers() {
    let mut wire = Wire::new();
    wire.slow_owner = true;
    wire.send(GET.repeat(2)).end();
    assert!(!wire.closed);
    wire.slow_owner = false;
    wire.answer();
    wire.run();
    assert_eq!((wire.statuses(), wire.closed), (vec!["200", "200"], true));
}

#[test]
fn a_request_cut_short_is_an_error_and_silence_is_not() {
    for (text, statuses) in [
        ("", vec![]),
        (GET, vec!["200"]),
        ("GET / HTTP/1.1\r\n", vec!["400"]),
        ("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nhi", vec!["400"]),
        ("POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n", vec!["400"]),
    ] {
        let mut wire = Wire::new();
        wire.send(text).end();
        assert_eq!((wire.statuses(), wire.closed), (statuses, true), "{text:?}");
    }
}

#[test]
fn every_wait_has_its_end() {
    let ms = Duration::from_millis;
    let before = |time: Duration| time.saturating_sub(ms(1));
    let head = "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n";

    let mut wire = Wire::new();
    wire.wait(before(HEAD_TIME_MAX));
    assert!(!wire.closed);
    wire.wait(ms(1));
    assert!(wire.closed && wire.out.is_empty(), "a first request that never begins");

    let mut wire = Wire::new();
    for byte in head.bytes() {
        wire.wait(ms(120)).send([byte]);
    }
    assert_eq!(wire.statuses(), ["408"], "a byte now and then does not stretch the head's time");

    let mut wire = Wire::new();
    wire.wait(ms(4900)).send(head).send("\r\n");
    wire.wait(before(BODY_TIME_MAX)).send("a");
    assert!(wire.out.is_empty());
    wire.wait(ms(1));
    assert_eq!(wire.statuses(), ["408"], "a slow body");
    assert!(wire.shut && !wire.closed, "the client may read the answer");
    wire.wait(DRAIN_TIME_MAX);
    assert!(wire.closed);

    let mut wire = Wire::new();
    wire.send(GET).wait(before(IDLE_TIME_MAX));
    assert!(!wire.closed);
    wire.wait(ms(1));
    assert!(wire.closed, "an idle connection");

    let mut wire = Wire::new();
    wire.send(GET).wait(before(IDLE_TIME_MAX)).send("G").wait(before(HEAD_TIME_MAX));
    assert_eq!((wire.statuses(), wire.closed), (vec!["200"], false), "a head has its own time");
    wire.wait(ms(1));
    assert_eq!(wire.statuses(), ["200", "408"]);

    let mut wire = Wire::new();
    wire.slow_kernel = true;
    wire.send(GET).wait(WRITE_TIME_MAX);
    assert!(wire.closed, "a client that does not read");

    let mut wire = Wire::new();
    wire.slow_owner = true;
    wire.send(GET);
    assert_eq!(wire.connection.deadline(), None, "the owner bounds its own time");
}

#[test]
fn after_an_error_the_rest_is_drained_so_that_the_answer_can_be_read() {
    let mut wire = Wire::new();
    wire.send("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 200000\r\n\r\n");
    assert_eq!((wire.statuses(), wire.shut, wire.closed), (vec!["413"], true, false));
    wire.send(vec![b'x'; 200_000]);
    assert!(!wire.closed);
    wire.end();
    assert!(wire.closed);

    let mut wire = Wire::new();
    wire.send("bad\r\n\r\n");
    for _ in 0..DRAIN_BYTES_MAX / 1024 {
        assert!(!wire.closed);
        wire.send([b'x'; 1024]);
    }
    assert!(wire.closed, "draining is bounded");
}

#[test]
fn one_empty_line_before_a_request_is_skipped() {
    let mut wire = Wire::new();
    wire.send("\r").send("\n").send(GET).send("\r\n").send(GET);
    assert_eq!(wire.statuses(), ["200", "200"]);
    wire.send("\r\n\r\n");
    assert_eq!(wire.statuses().last(), Some(&"400"));
}

#[test]
fn a_connection_can_be_refused_before_it_asks() {
    let mut wire = Wire::new();
    wire.connection.refuse(wire.now, Response::new(503, "text/plain", Vec::new()));
    wire.run();
    wire.send(GET);
    assert_eq!((wire.statuses(), wire.shut), (vec!["503"], true));
}

#[test]
fn sizes_hold_to_the_byte() {
    let line = |length: usize| {
        let frame = "GET / HTTP/1.1\r\n".len();
        format!("GET /{} HTTP/1.1\r\nHost: h\r\n\r\n", "a".repeat(length - frame))
    };
    let head = |length: usize| {
        let start = "GET / HTTP/1.1\r\nHost: h\r\nX: ";
        format!("{start}{}\r\n\r\n", "a".repeat(length - start.len() - 4))
    };
    let headers = |count: usize| format!("GET / HTTP/1.1\r\nHost: h\r\n{}\r\n", "X: y\r\n".repeat(count - 1));
    let body =
        |length: usize| format!("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: {length}\r\n\r\n{}", "a".repeat(length));
    let chunks = |length: usize| {
        let data = "8\r\n12345678\r\n".repeat(length / 8);
        format!("POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n{data}0\r\n\r\n")
    };
    for (what, text, status) in [
        ("request line", line(REQUEST_LINE_BYTES_MAX), "200"),
        ("request line", line(REQUEST_LINE_BYTES_MAX + 1), "414"),
        ("head", head(HEAD_BYTES_MAX), "200"),
        ("head", head(HEAD_BYTES_MAX + 1), "431"),
        ("headers", headers(HEADERS_MAX), "200"),
        ("headers", headers(HEADERS_MAX + 1), "431"),
        ("body", body(BODY_BYTES_MAX), "200"),
        ("body", body(BODY_BYTES_MAX + 1), "413"),
        ("chunks", chunks(BODY_BYTES_MAX), "200"),
        ("chunks", chunks(BODY_BYTES_MAX + 8), "413"),
    ] {
        let mut wire = Wire::new();
        wire.send(text);
        assert_eq!(wire.statuses(), [status], "{what}");
    }
}
