//! Offers made to hurt: nothing panics, work stays bounded, and whatever is still taken gets a clean answer.

use std::fmt::Write;

use crate::peer::sdp::answer::ANSWER_BYTES_MAX;
use crate::peer::sdp::candidate::CANDIDATES_MAX;
use crate::peer::sdp::lines::OFFER_ATTRIBUTES_MAX;
use crate::peer::sdp::lint::{Context, lint};
use crate::peer::sdp::samples::{acceptable, fixture, fixture_names, params};
use crate::peer::sdp::{Offer, Policy, write_answer};

/// A small xorshift generator, so that a failure repeats.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % bound as u64) as usize
    }

    fn pick<'a>(&mut self, from: &[&'a str]) -> &'a str {
        from[self.below(from.len())]
    }
}

/// Reads an offer and holds what came of it to every promise. Says whether it was taken.
fn survives(text: &str) -> bool {
    let offer = match Offer::parse(text) {
        Ok(offer) => offer,
        Err(error) => {
            assert!(error.to_string().len() < 300, "{error}");
            return false;
        }
    };
    assert!(offer.candidates.len() <= OFFER_ATTRIBUTES_MAX);
    for own_media_ip in ["198.51.100.7", "2606:4700::1"] {
        let own_media_ip = own_media_ip.parse().unwrap();
        let policy = Policy { allow_private: true, own_listener: None, own_media_ports: 40_000..=41_999, own_media_ip };
        if let Ok(selected) = policy.select(&offer) {
            assert!(selected.usable.len() <= CANDIDATES_MAX);
            assert!(selected.usable.iter().all(|addr| addr.is_ipv4() == own_media_ip.is_ipv4()));
        }
    }
    let answer = write_answer(&offer, &params());
    assert!(answer.len() <= ANSWER_BYTES_MAX, "an answer of {} bytes", answer.len());
    let findings = lint(&answer, Context { offer: Some(text), allow_private: false });
    assert!(findings.is_empty(), "{findings:#?}\n--- offer\n{text}\n--- answer\n{answer}");
    true
}

#[test]
fn every_truncation_and_every_missing_line_is_survived() {
    for (name, text) in acceptable() {
        assert!(survives(&text), "{name}");
        for end in 0..text.len() {
            survives(&text[..end]);
        }
        let lines: Vec<&str> = text.split_inclusive('\n').collect();
        for missing in 0..lines.len() {
            let without: String =
                lines.iter().enumerate().filter(|(i, _)| *i != missing).map(|(_, line)| *line).collect();
            survives(&without);
            let twice = [&lines[..=missing], &lines[missing..]].concat().concat();
            survives(&twice);
        }
    }
}

#[test]
fn every_missing_byte_is_survived() {
    for (_, text) in acceptable() {
        for at in 0..text.len() {
            survives(&(text[..at].to_owned() + &text[at + 1..]));
        }
    }
}

#[test]
fn mutated_offers_never_panic_and_those_still_taken_get_a_clean_answer() {
    const WORDS: &[&str] = &[
        "0",
        "-1",
        "65535",
        "65536",
        "4294967295",
        "4294967296",
        "18446744073709551616",
        "99999999999999999999999",
        ":",
        " ",
        "  ",
        "=",
        ";",
        "\r",
        "\n",
        "\r\n",
        "\0",
        "\t",
        "é",
        "\u{2028}",
        "a=",
        "a=mid:x",
        "m=audio 9 UDP/TLS/RTP/SAVPF 111",
        "a=rtpmap:111 opus/48000/2",
        "a=rtpmap:126 opus/48000/2",
        "a=fmtp:111 x",
        "a=inactive",
        "a=ice-lite",
        "127.0.0.1",
        "::ffff:127.0.0.1",
        "*",
        "{}",
        "%n",
        "111",
        "126",
    ];
    let mut random = Random(0x5d9_a1f0c);
    let offers = acceptable();
    let (mut taken, mut refused) = (0, 0);
    for _ in 0..40_000 {
        let mut bytes = offers[random.below(offers.len())].1.clone().into_bytes();
        for _ in 0..=random.below(4) {
            let at = random.below(bytes.len());
            let end = (at + 1 + random.below(12)).min(bytes.len());
            match random.below(6) {
                0 => bytes[at] = random.below(256) as u8,
                1 => bytes[at] ^= 1 << random.below(8),
                2 => drop(bytes.drain(at..end)),
                3 => drop(bytes.splice(at..at, random.pick(WORDS).bytes())),
                4 => drop(bytes.splice(at..end, random.pick(WORDS).bytes())),
                _ => {
                    let copied = bytes[at..end].to_vec();
                    let to = random.below(bytes.len());
                    drop(bytes.splice(to..to, copied));
                }
            }
            if bytes.is_empty() {
                bytes.push(b'v');
            }
        }
        if survives(&String::from_utf8_lossy(&bytes)) { taken += 1 } else { refused += 1 }
    }
    assert!(
        taken > 5_000 && refused > 5_000,
        "the mutations are too weak or too strong: {taken} taken, {refused} refused"
    );
}

#[test]
fn shuffled_lines_of_all_fixtures_are_survived() {
    let names = [fixture_names("offer-"), fixture_names("answer-"), fixture_names("negative-")].concat();
    let texts: Vec<String> = names.iter().map(|name| fixture(name)).collect();
    let lines: Vec<&str> = texts.iter().flat_map(|text| text.split_inclusive('\n')).collect();
    let mut random = Random(7);
    for _ in 0..5_000 {
        let mut text = "v=0\r\no=- 1 2 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\n".to_owned();
        for _ in 0..random.below(80) {
            text.push_str(random.pick(&lines));
        }
        survives(&text);
        lint(&text, Context { offer: Some(&texts[0]), allow_private: false });
        lint(&texts[0], Context { offer: Some(&text), allow_private: true });
    }
}

#[test]
fn ten_thousand_candidates_are_refused_and_as_many_as_fit_are_bounded() {
    let live = fixture("offer-live-2026-10-02.sdp");
    let with = |count: usize| {
        let mut text = live.clone();
        for i in 0..count {
            write!(text, "a=candidate:1 1 udp {i} 31.13.{}.{} 5000 typ host\r\n", i / 250, 1 + i % 250).unwrap();
        }
        text
    };
    assert!(!survives(&with(10_000)));
    assert_eq!(Offer::parse(&with(10_000)).unwrap_err().code(), "offer_too_large");
    assert_eq!(Offer::parse(&with(1_000)).unwrap_err().code(), "offer_too_many_attributes");
    assert!(survives(&with(100)));
}

#[test]
fn a_list_of_refused_candidates_is_clipped_in_the_error() {
    let mut text = fixture("offer-live-2026-10-02.sdp");
    for i in 0..100 {
        write!(text, "a=candidate:1 1 udp {i} 203.0.113.{i} 5000 typ host\r\n").unwrap();
    }
    let own_media_ip = "198.51.100.7".parse().unwrap();
    let policy = Policy { allow_private: true, own_listener: None, own_media_ports: 40_000..=41_999, own_media_ip };
    let error = policy.select(&Offer::parse(&text).unwrap()).unwrap_err().to_string();
    assert!(error.contains("and 94 more") && error.len() < 600, "{error}");
}

#[test]
fn long_lines_and_huge_values_are_survived() {
    let live = fixture("offer-live-2026-10-02.sdp");
    for (from, to) in [
        ("s=-", format!("s={}", "x".repeat(60_000))),
        ("a=sendrecv", format!("a={}", "x".repeat(60_000))),
        ("a=sendrecv", format!("a=candidate:{}", "1 ".repeat(30_000))),
        ("a=sendrecv", format!("a=rtcp-fb:111 {}", "x".repeat(60_000))),
        ("a=sendrecv", format!("a=ssrc:{}", "9".repeat(60_000))),
        ("a=sendrecv", format!("a=group:BUNDLE{}", " audio".repeat(10_000))),
        ("a=maxptime:20", format!("a=maxptime:{}", "9".repeat(60_000))),
        ("3480 typ", format!("{} typ", "9".repeat(30_000))),
    ] {
        assert!(live.contains(from));
        assert!(survives(&live.replace(from, &to)), "{from}");
    }
    for (from, to) in [
        ("SAVPF 111", format!("SAVPF{} 111", " 96".repeat(20_000))),
        ("sha-256 75", format!("sha-256 {}75", "75:".repeat(20_000))),
        ("a=mid:audio", format!("a=mid:{}", "a".repeat(60_000))),
        ("a=fmtp:111 ", format!("a=fmtp:111 {}", ";".repeat(60_000))),
        ("audio 3480", format!("audio {}", "9".repeat(60_000))),
        ("v=0", "\u{feff}v=0".to_owned()),
        (live.as_str(), "v=0\n".repeat(16_000)),
        (live.as_str(), "\n".repeat(65_000)),
        (live.as_str(), "=".repeat(65_000)),
    ] {
        assert!(live.contains(from));
        assert!(!survives(&live.replace(from, &to)), "{from}");
    }
}

#[test]
fn the_linter_survives_mutated_answers() {
    let offer = fixture("offer-live-2026-10-02.sdp");
    let names = [fixture_names("answer-"), fixture_names("negative-"), fixture_names("proposed-")].concat();
    let answers: Vec<String> = names.iter().map(|name| fixture(name)).collect();
    let mut random = Random(11);
    for _ in 0..20_000 {
        let mut bytes = answers[random.below(answers.len())].clone().into_bytes();
        for _ in 0..=random.below(6) {
            let at = random.below(bytes.len());
            if random.below(2) == 0 {
                bytes[at] = random.below(256) as u8;
            } else {
                bytes.drain(at..(at + 1 + random.below(8)).min(bytes.len()));
            }
        }
        lint(&String::from_utf8_lossy(&bytes), Context { offer: Some(&offer), allow_private: false });
    }
}
