//! Requests that parsers differ about, and mutated ones.
//!
//! Each vector is one family of request smuggling or parser confusion, put in our own words. The claim is the same for
//! all: 400 (or the status named), one answer, and the connection closes, so that nothing behind it is ever read as a
//! request of its own. Beside each family stands its nearest harmless neighbour, which must be served: a parser that
//! refuses all would pass otherwise.

use super::tests::Wire;
use super::*;

/// What follows every vector: if the framing were misread, this would be answered.
const SMUGGLED: &str = "GET /smuggled HTTP/1.1\r\nHost: h\r\n\r\n";

fn post(headers: &str, body: &str) -> String {
    format!("POST /p HTTP/1.1\r\nHost: h\r\n{headers}\r\n{body}")
}

fn refused(what: &str, bytes: &[u8], status: u16) {
    for cut in [1, 2, 3, 7, usize::MAX] {
        let mut wire = Wire::new();
        bytes.chunks(cut.min(bytes.len())).for_each(|part| _ = wire.send(part));
        wire.send(SMUGGLED);
        let statuses: Vec<_> = wire.problems.iter().map(|problem| problem.status).collect();
        assert_eq!(statuses, [status], "{what}: {:?}", String::from_utf8_lossy(bytes));
        assert!(wire.requests.is_empty(), "{what}: taken as {:?}", wire.requests);
        assert!(wire.shut, "{what}: left open");
    }
}

fn served(what: &str, bytes: &[u8], bodies: &[&str]) {
    let mut wire = Wire::new();
    wire.send(bytes).send(SMUGGLED);
    let got: Vec<_> = wire.requests.iter().map(|request| String::from_utf8_lossy(&request.body)).collect();
    assert_eq!(wire.problems, [], "{what}");
    assert_eq!(got[..got.len() - 1], *bodies, "{what}");
}

#[test]
fn a_body_has_one_length_or_the_request_is_refused() {
    let chunks = "5\r\nhello\r\n0\r\n\r\n";
    for (what, headers, body) in [
        ("both, chunked last", "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", chunks),
        ("both, length last", "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n", chunks),
        ("both, length zero", "Content-Length: 0\r\nTransfer-Encoding: chunked\r\n", chunks),
        ("two lengths that differ", "Content-Length: 5\r\nContent-Length: 0\r\n", "hello"),
        ("two lengths that agree", "Content-Length: 5\r\nContent-Length: 5\r\n", "hello"),
        ("two lengths in one line", "Content-Length: 5, 5\r\n", "hello"),
        ("two lengths in one line without space", "Content-Length: 5,5\r\n", "hello"),
        ("a sign", "Content-Length: +5\r\n", "hello"),
        ("a negative length", "Content-Length: -5\r\n", "hello"),
        ("a negative zero", "Content-Length: -0\r\n", ""),
        ("hexadecimal", "Content-Length: 0x5\r\n", "hello"),
        ("an underscore", "Content-Length: 1_0\r\n", "hello"),
        ("no digits", "Content-Length: \r\n", "hello"),
        ("no value", "Content-Length:\r\n", ""),
        ("quotes", "Content-Length: \"5\"\r\n", "hello"),
        ("a fraction", "Content-Length: 5.0\r\n", "hello"),
        ("an exponent", "Content-Length: 5e0\r\n", "hello"),
        ("an inner space", "Content-Length: 5 0\r\n", "hello"),
        ("a parameter", "Content-Length: 5;\r\n", "hello"),
        ("digits of another script", "Content-Length: \u{0665}\r\n", "hello"),
        ("2^64 + 5", "Content-Length: 18446744073709551621\r\n", "hello"),
        ("a length of many zeros", "Content-Length: 00000000000000000000005\r\n", "hello"),
        ("two encodings", "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", chunks),
        ("chunked twice", "Transfer-Encoding: chunked, chunked\r\n", chunks),
        ("identity beside chunked", "Transfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\n", chunks),
        ("chunked not last", "Transfer-Encoding: chunked, identity\r\n", chunks),
        ("another coding first", "Transfer-Encoding: gzip, chunked\r\n", chunks),
        ("identity alone", "Transfer-Encoding: identity\r\n", "hello"),
        ("an unknown coding", "Transfer-Encoding: xchunked\r\n", chunks),
        ("a prefix of the word", "Transfer-Encoding: chunk\r\n", chunks),
        ("quotes round the word", "Transfer-Encoding: \"chunked\"\r\n", chunks),
        ("a parameter on the word", "Transfer-Encoding: chunked;q=1\r\n", chunks),
        ("an empty list member", "Transfer-Encoding: ,chunked\r\n", chunks),
        ("an empty encoding", "Transfer-Encoding:\r\n", chunks),
        ("a vertical tab before the word", "Transfer-Encoding: \x0bchunked\r\n", chunks),
        ("a form feed after the word", "Transfer-Encoding: chunked\x0c\r\n", chunks),
        ("a no-break space after the word", "Transfer-Encoding: chunked\u{a0}\r\n", chunks),
        ("a delete after the word", "Transfer-Encoding: chunked\x7f\r\n", chunks),
        ("a NUL after the word", "Transfer-Encoding: chunked\0\r\n", chunks),
        ("a space before the colon", "Transfer-Encoding : chunked\r\n", chunks),
        ("a space before the length's colon", "Content-Length : 5\r\n", "hello"),
        ("a tab before the colon", "Transfer-Encoding\t: chunked\r\n", chunks),
        ("a folded value", "Transfer-Encoding:\r\n chunked\r\n", chunks),
        ("a folded length", "Content-Length:\r\n\t5\r\n", "hello"),
        ("a name that begins with a space", "X: y\r\n Transfer-Encoding: chunked\r\n", chunks),
        ("a hidden header after LF", "X: y\nTransfer-Encoding: chunked\r\n", chunks),
        ("a hidden header after CR", "X: y\rTransfer-Encoding: chunked\r\n", chunks),
        ("two CRs before LF", "Content-Length: 5\r\r\n", "hello"),
        ("a control character in a name", "Transfer\x01-Encoding: chunked\r\n", chunks),
        ("a name of another script", "Tr\u{e4}nsfer: x\r\n", ""),
        ("a header without colon", "Transfer-Encoding\r\n", chunks),
        ("a header without name", ": chunked\r\n", chunks),
    ] {
        refused(what, post(headers, body).as_bytes(), 400);
    }
    refused(
        "chunked in HTTP/1.0",
        format!("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}").as_bytes(),
        400,
    );

    served("a plain length", post("Content-Length: 5\r\n", "hello").as_bytes(), &["hello"]);
    served("leading zeros", post("content-length:\t005 \r\n", "hello").as_bytes(), &["hello"]);
    served("chunks", post("TRANSFER-ENCODING:ChUnKeD\r\n", chunks).as_bytes(), &["hello"]);
    served("names alike", post("Content_Length: 9\r\nX-Transfer-Encoding: chunked\r\n", "").as_bytes(), &[""]);
    served("a body on GET", b"GET /p HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\nhi", &["hi"]);
}

#[test]
fn chunks_have_one_reading_or_the_request_is_refused() {
    for (what, body) in [
        ("an empty size", "\r\nhello\r\n0\r\n\r\n"),
        ("a prefix", "0x5\r\nhello\r\n0\r\n\r\n"),
        ("a sign", "+5\r\nhello\r\n0\r\n\r\n"),
        ("a negative size", "-5\r\nhello\r\n0\r\n\r\n"),
        ("an underscore", "0_5\r\nhello\r\n0\r\n\r\n"),
        ("a space before", " 5\r\nhello\r\n0\r\n\r\n"),
        ("a space after", "5 \r\nhello\r\n0\r\n\r\n"),
        ("a tab after", "5\t\r\nhello\r\n0\r\n\r\n"),
        ("a space before the extension", "5 ;x\r\nhello\r\n0\r\n\r\n"),
        ("a letter that is no digit", "5g\r\nhello\r\n0\r\n\r\n"),
        ("a size that wraps 32 bits", "100000005\r\nhello\r\n0\r\n\r\n"),
        ("a size that wraps 64 bits", "10000000000000005\r\nhello\r\n0\r\n\r\n"),
        ("a size line that ends with LF", "5\nhello\r\n0\r\n\r\n"),
        ("a size line that ends with CR", "5\rhello\r\n0\r\n\r\n"),
        ("a size line that ends with two CRs", "5\r\r\nhello\r\n0\r\n\r\n"),
        ("an extension that ends with LF", "5;x\nhello\r\n0\r\n\r\n"),
        ("an extension with a CR inside", "5;a\rb\r\nhello\r\n0\r\n\r\n"),
        ("an extension with a NUL", "5;a\0\r\nhello\r\n0\r\n\r\n"),
        ("data longer than its size", "4\r\nhello\r\n0\r\n\r\n"),
        ("data shorter than its size", "6\r\nhello\r\n0\r\n\r\n"),
        ("data that ends with CR and another byte", "5\r\nhello\rX0\r\n\r\n"),
        ("data that ends with LF", "5\r\nhello\n0\r\n\r\n"),
        ("data that ends with any two bytes", "5\r\nhelloXX0\r\n\r\n"),
        ("a last chunk that ends with LF", "5\r\nhello\r\n0\n\r\n"),
        ("a body that ends with LF", "5\r\nhello\r\n0\r\n\n"),
        ("a trailer without colon", "0\r\nsmuggled\r\n\r\n"),
        ("a trailer with a space before its colon", "0\r\nX : y\r\n\r\n"),
        ("a folded trailer", "0\r\nX: y\r\n z\r\n\r\n"),
        ("a request for a trailer", "0\r\nGET /smuggled HTTP/1.1\r\nHost: h\r\n\r\n"),
    ] {
        refused(what, post("Transfer-Encoding: chunked\r\n", body).as_bytes(), 400);
    }
    let long = "a".repeat(CHUNK_EXTRA_BYTES_MAX);
    for (what, body) in [
        ("an extension without end", format!("5;{long}")),
        ("a size without end", "0".repeat(CHUNK_EXTRA_BYTES_MAX + 9)),
        ("a trailer without end", format!("0\r\nX: {long}")),
        ("extensions by the piece", format!("1;{}\r\na\r\n", "x".repeat(1000)).repeat(20)),
    ] {
        refused(what, post("Transfer-Encoding: chunked\r\n", &body).as_bytes(), 431);
    }
    let many = format!("0\r\n{}\r\n", "X: y\r\n".repeat(HEADERS_MAX + 1));
    refused("trailers without number", post("Transfer-Encoding: chunked\r\n", &many).as_bytes(), 400);

    let sound = "5;a=b;c=\"d;e\"\r\nhello\r\n000\r\nX: y\r\n\r\n";
    served("extension and trailer", post("Transfer-Encoding: chunked\r\n", sound).as_bytes(), &["hello"]);
}

#[test]
fn request_lines_and_hosts_have_one_reading_or_the_request_is_refused() {
    for (what, text) in [
        ("LF ends", "GET / HTTP/1.1\nHost: h\n\n"),
        ("LF ends the request line", "GET / HTTP/1.1\nHost: h\r\n\r\n"),
        ("LF ends the head", "GET / HTTP/1.1\r\nHost: h\r\n\n"),
        ("two spaces", "GET  / HTTP/1.1\r\nHost: h\r\n\r\n"),
        ("two spaces before the version", "GET /  HTTP/1.1\r\nHost: h\r\n\r\n"),
        ("a tab", "GET\t/ HTTP/1.1\r\nHost: h\r\n\r\n"),
        ("a tab before the version", "GET /\tHTTP/1.1\r\nHost: h\r\n\r\n"),
        ("a space at the end", "GET / HTTP/1.1 \r\nHost: h\r\n\r\n"),
        ("a space at the start", " GET / HTTP/1.1\r\nHost: h\r\n\r\n"),
        ("a target with a space", "GET /a b HTTP/1.1\r\nHost: h\r\n\r\n"),
        ("a second request as target", "GET /a HTTP/1.1 GET /b HTTP/1.1\r\nHost: h\r\n\r\n"),
        ("a CR in the target", "GET /a\rb HTTP/1.1\r\nHost: h\r\n\r\n"),
        ("a NUL in the target", "GET /a\0 HTTP/1.1\r\nHost: h\r\n\r\n"),
        ("no version (HTTP/0.9)", "GET /\r\n\r\n"),
        ("a lower-case version", "GET / http/1.1\r\nHost: h\r\n\r\n"),
        ("a version with a sign", "GET / HTTP/+1.1\r\nHost: h\r\n\r\n"),
        ("a version with two digits", "GET / HTTP/1.10\r\nHost: h\r\n\r\n"),
        ("a version with a zero", "GET / HTTP/01.1\r\nHost: h\r\n\r\n"),
        ("another protocol", "GET / ICE/1.0\r\nHost: h\r\n\r\n"),
        ("no method", " / HTTP/1.1\r\nHost: h\r\n\r\n"),
        ("a method that is no token", "G@T / HTTP/1.1\r\nHost: h\r\n\r\n"),
        ("a method without end", "GETGETGETGETGETGETGETGETGETGETGET / HTTP/1.1\r\nHost: h\r\n\r\n"),
        ("an authority as target", "CONNECT h:443 HTTP/1.1\r\nHost: h\r\n\r\n"),
        ("a target without slash", "GET smuggled HTTP/1.1\r\nHost: h\r\n\r\n"),
        ("a fragment", "GET /a#b HTTP/1.1\r\nHost: h\r\n\r\n"),
        ("a path that climbs", "GET /k/../api HTTP/1.1\r\nHost: h\r\n\r\n"),
        ("a path that climbs, encoded", "GET /k/%2E%2e/api HTTP/1.1\r\nHost: h\r\n\r\n"),
        ("a user in the target", "GET http://u@h/ HTTP/1.1\r\nHost: h\r\n\r\n"),
        ("two empty lines before", "\r\n\r\nGET / HTTP/1.1\r\nHost: h\r\n\r\n"),
        ("LF before", "\nGET / HTTP/1.1\r\nHost: h\r\n\r\n"),
        ("white space before the first header", "GET / HTTP/1.1\r\n Host: h\r\n\r\n"),
        ("a line of white space", "GET / HTTP/1.1\r\nHost: h\r\n \r\n\r\n"),
        ("no Host", "GET / HTTP/1.1\r\n\r\n"),
        ("two Hosts that agree", "GET / HTTP/1.1\r\nHost: h\r\nHost: h\r\n\r\n"),
        ("two Hosts that differ", "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n"),
        ("two Hosts in HTTP/1.0", "GET / HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n"),
        ("two Hosts in one line", "GET / HTTP/1.1\r\nHost: a, b\r\n\r\n"),
        ("a Host of two words", "GET / HTTP/1.1\r\nHost: a b\r\n\r\n"),
        ("an empty Host", "GET / HTTP/1.1\r\nHost:\r\n\r\n"),
        ("a Host with a path", "GET / HTTP/1.1\r\nHost: h/x\r\n\r\n"),
        ("a Host with a user", "GET / HTTP/1.1\r\nHost: u@h\r\n\r\n"),
        ("a Host with a port that is no number", "GET / HTTP/1.1\r\nHost: h:80x\r\n\r\n"),
        ("no Host beside an absolute target", "GET http://h/ HTTP/1.1\r\n\r\n"),
        ("a TLS hello", "\x16\x03\x01\0\x01\r\n\r\n"),
    ] {
        refused(what, text.as_bytes(), 400);
    }
    for version in ["HTTP/2.0", "HTTP/1.2", "HTTP/3.0", "HTTP/0.9"] {
        refused("a version not spoken", format!("GET / {version}\r\nHost: h\r\n\r\n").as_bytes(), 505);
    }
    refused("the HTTP/2 preface", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505);
    served("absolute form", b"GET http://a:1/x HTTP/1.1\r\nHost: b\r\n\r\n", &[""]);
    let mut wire = Wire::new();
    wire.send("GET http://A:1/x HTTP/1.1\r\nHost: b\r\n\r\n");
    assert_eq!(wire.requests[0].head.host.as_deref(), Some("a:1"), "the target's host counts (RFC 9112, 3.2.2)");
}

/// httparse would refuse most of these too. The scan must not lean on that: another version may be laxer.
#[test]
fn the_scan_refuses_lines_with_two_readings_by_itself() {
    let scan = |text: &str| super::head::Scan::default().advance(text.as_bytes());
    for bad in ["GET / HTTP/1.1\n", "a\rb", "a\r\r\n", "a\0", "a\r\n b", "a\r\n\tb", "\r\n", "\n", " a"] {
        assert!(scan(bad).is_err(), "{bad:?} passed");
    }
    assert_eq!(scan("a\r\nb: c\r\n\r\nrest"), Ok(Some(11)));
    assert_eq!(scan("a\r\nb: c\r\n\r"), Ok(None));
}

/// Small, seeded, and the same everywhere.
struct XorShift(u64);

impl XorShift {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % bound as u64) as usize
    }
}

#[test]
fn mutated_requests_never_panic_and_are_answered_at_most_once_each() {
    let seeds = [
        "POST /api/sessions HTTP/1.1\r\nHost: h:80\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}",
        "PUT /api/sessions/a%2Fb?x=1 HTTP/1.1\r\nHost: [::1]\r\nTransfer-Encoding: chunked\r\n\r\n2;e=1\r\n{}\r\n0\r\nT: v\r\n\r\n",
        "GET http://h/?wait=connected HTTP/1.0\r\nConnection: keep-alive\r\nExpect: 100-continue\r\n\r\n",
        "HEAD / HTTP/1.1\r\nhost: h\r\nContent-Length: 0\r\n\r\nGET / HTTP/1.1\r\nHost: h\r\n\r\n",
    ];
    let spice = [
        &b"\r"[..],
        b"\n",
        b"\0",
        b" ",
        b"\t",
        b":",
        b"\r\n",
        b"\r\n\r\n",
        b"0",
        b"f",
        b"%",
        b"/",
        b"\xff",
        b"chunked",
    ];
    let mut random = XorShift(0x9e37_79b9_7f4a_7c15);
    let mut taken = 0;
    for round in 0..40_000 {
        let mut bytes = seeds[round % seeds.len()].as_bytes().to_vec();
        for _ in 0..=random.below(4) {
            let at = random.below(bytes.len());
            match random.below(4) {
                0 => bytes[at] = random.below(256) as u8,
                1 => drop(bytes.remove(at)),
                2 => drop(bytes.splice(at..at, spice[random.below(spice.len())].iter().copied())),
                _ => {
                    let piece = bytes[at..(at + 1 + random.below(20)).min(bytes.len())].to_vec();
                    drop(bytes.splice(at..at, piece));
                }
            }
        }
        let mut wire = Wire::new();
        let cut = 1 + random.below(bytes.len());
        bytes.chunks(cut).for_each(|part| _ = wire.send(part));
        assert!(wire.requests.len() <= 3 && wire.problems.len() <= 1, "{bytes:?}");
        assert!(wire.problems.is_empty() || wire.shut, "{bytes:?}");
        taken += wire.requests.len();
        wire.now += std::time::Duration::from_secs(60);
        wire.connection.timed_out(wire.now);
        wire.run();
        wire.now += std::time::Duration::from_secs(60);
        wire.connection.timed_out(wire.now);
        wire.run();
        assert!(wire.closed, "every connection ends: {bytes:?}");
    }
    assert!(taken > 4_000, "mutations must leave some requests sound, or this tests nothing: {taken}");
}

#[test]
fn the_reading_does_not_depend_on_how_bytes_are_cut() {
    let mut random = XorShift(7);
    let seed = post("Transfer-Encoding: chunked\r\nX: y\r\n", "5;a=b\r\nhello\r\n0\r\nT: u\r\n\r\n");
    for _ in 0..4_000 {
        let mut bytes = seed.clone().into_bytes();
        let at = random.below(bytes.len());
        bytes[at] = random.below(128) as u8;
        let read = |cut: usize| {
            let mut wire = Wire::new();
            bytes.chunks(cut).for_each(|part| _ = wire.send(part));
            let bodies: Vec<_> = wire.requests.iter().map(|request| request.body.clone()).collect();
            (bodies, wire.problems)
        };
        assert_eq!(read(1), read(bytes.len()), "{:?}", String::from_utf8_lossy(&bytes));
    }
}
