//! Rules on what travels: the m-line, codecs, packet time, sources.

use super::document::Document;
use super::{Findings, Rule};

pub(super) fn judge(answer: &Document<'_>, offer: Option<&Document<'_>>, findings: &mut Findings) {
    if answer.media.len() != 1 {
        findings.error(Rule::OneMedia, format!("{} m= lines instead of one", answer.media.len()));
    }
    if let Some(media) = answer.media.first() {
        let offered = offer.and_then(|offer| offer.media.first().copied());
        let formats = media_line(media, offered, findings);
        codecs(answer, offer, &formats, findings);
    }
    feedback(answer, offer, findings);
    extensions(answer, offer, findings);
    packet_time(answer, offer, findings);
    sources(answer, findings);
    for direction in ["sendonly", "recvonly", "inactive"] {
        if answer.has(direction) {
            findings.error(Rule::Direction, format!("{direction} instead of sendrecv"));
        }
    }
}

/// Judges `audio port profile formats…`; returns the payload types.
fn media_line(media: &str, offered: Option<&str>, findings: &mut Findings) -> Vec<u8> {
    let words: Vec<&str> = media.split(' ').collect();
    let [kind, port, profile, formats @ ..] = &words[..] else {
        findings.error(Rule::OneMedia, "m= is not `audio port profile payload-types`");
        return Vec::new();
    };
    if *kind != "audio" || !port.parse::<u16>().is_ok_and(|port| port > 0) {
        findings.error(Rule::OneMedia, "m= is not audio on a port from 1 to 65535");
    }
    let offered: Option<Vec<&str>> = offered.map(|offered| offered.split(' ').collect());
    let offered_profile = offered.as_ref().map(|words| words.get(2).copied().unwrap_or(""));
    if !["UDP/TLS/RTP/SAVPF", "UDP/TLS/RTP/SAVP"].contains(profile)
        || offered_profile.is_some_and(|offered| offered != *profile)
    {
        findings.error(Rule::Profile, "the profile is not the offer's over UDP/TLS");
    }
    if formats.len() > 128 {
        findings.error(Rule::PayloadTypes, "more than 128 payload types");
    }
    let mut payload_types = Vec::new();
    for format in formats.iter().take(128) {
        let is_offered = offered.as_ref().is_none_or(|offered| offered.iter().skip(3).any(|theirs| theirs == format));
        match format.parse::<u8>() {
            Ok(pt @ ..128) if is_offered && !payload_types.contains(&pt) => payload_types.push(pt),
            Ok(pt @ ..128) if is_offered => findings.error(Rule::PayloadTypes, format!("payload type {pt} twice")),
            Ok(pt @ ..128) => findings.error(Rule::PayloadTypes, format!("payload type {pt} was not offered")),
            _ => findings.error(Rule::PayloadTypes, "a payload type is no number from 0 to 127"),
        }
    }
    payload_types
}

fn codecs(answer: &Document<'_>, offer: Option<&Document<'_>>, payload_types: &[u8], findings: &mut Findings) {
    let mut opus = 0;
    for pt in payload_types {
        let codec = answer.of_payload_type("rtpmap", *pt).unwrap_or("");
        if codec.eq_ignore_ascii_case("opus/48000/2") {
            opus += 1;
        } else if !codec.eq_ignore_ascii_case("telephone-event/8000") {
            let problem = format!("payload type {pt} is neither opus/48000/2 nor telephone-event/8000");
            findings.error(Rule::Codec, problem);
        }
        if let Some(offer) = offer {
            let theirs = offer.of_payload_type("rtpmap", *pt).unwrap_or("");
            if !theirs.eq_ignore_ascii_case(codec) && !theirs.eq_ignore_ascii_case(&format!("{codec}/1")) {
                findings.error(Rule::Codec, format!("payload type {pt} is another codec in the offer"));
            }
            if offer.of_payload_type("fmtp", *pt) != answer.of_payload_type("fmtp", *pt) {
                findings.error(Rule::Fmtp, format!("the fmtp of payload type {pt} is not the offer's"));
            }
        }
    }
    if opus != 1 {
        findings.error(Rule::Codec, format!("{opus} payload types for Opus instead of one"));
    }
    for name in ["rtpmap", "fmtp"] {
        for (index, value) in answer.all(name).enumerate() {
            let pt = value.split(' ').next().and_then(|pt| pt.parse().ok());
            let repeated = answer.all(name).take(index).any(|other| other.split(' ').next() == value.split(' ').next());
            if repeated || !pt.is_some_and(|pt| payload_types.contains(&pt)) {
                findings.error(Rule::PayloadTypes, format!("a {name} repeats, or is for no payload type of m="));
            }
        }
    }
}

fn feedback(answer: &Document<'_>, offer: Option<&Document<'_>>, findings: &mut Findings) {
    for ours in answer.all("rtcp-fb") {
        let (_, kind) = ours.split_once(' ').unwrap_or(("", ours));
        let matches = |theirs: &str| theirs == ours || theirs.strip_prefix("* ") == Some(kind);
        if offer.is_some_and(|offer| !offer.all("rtcp-fb").any(matches)) {
            findings.error(Rule::RtcpFeedback, "an rtcp-fb that was not offered");
        } else {
            findings.warning(Rule::RtcpFeedback, "an rtcp-fb: this bridge gives no feedback");
        }
    }
}

fn extensions(answer: &Document<'_>, offer: Option<&Document<'_>>, findings: &mut Findings) {
    for ours in answer.all("extmap") {
        if offer.is_some_and(|offer| !offer.all("extmap").any(|theirs| theirs == ours)) {
            findings.error(Rule::Extmap, "an extmap that was not offered");
        } else {
            findings.warning(Rule::Extmap, "an extmap: this bridge uses no header extension");
        }
    }
}

fn packet_time(answer: &Document<'_>, offer: Option<&Document<'_>>, findings: &mut Findings) {
    match answer.first("ptime") {
        None => findings.warning(Rule::PacketTime, "ptime is missing"),
        Some(_) if answer.all("ptime").eq(["20"]) => {}
        Some(_) => findings.error(Rule::PacketTime, "ptime is not 20, once"),
    }
    if answer.has("maxptime") {
        if !answer.all("maxptime").eq(["20"]) {
            findings.error(Rule::PacketTime, "maxptime is not 20, once");
        }
        if offer.is_some_and(|offer| offer.of_media("maxptime").next().is_none()) {
            findings.error(Rule::PacketTime, "maxptime was not offered");
        }
    }
}

fn sources(answer: &Document<'_>, findings: &mut Findings) {
    let mut ids: Vec<&str> = answer.all("ssrc").map(|ssrc| ssrc.split(' ').next().unwrap_or("")).collect();
    ids.sort_unstable();
    ids.dedup();
    let has_cname = answer.all("ssrc").any(|ssrc| ssrc.split(' ').any(|word| word.starts_with("cname:")));
    if ids.len() != 1 || !ids.iter().all(|id| id.parse::<u32>().is_ok()) || !has_cname {
        findings.error(Rule::Ssrc, format!("{} SSRCs instead of one with a cname", ids.len()));
    }
    if answer.has("ssrc-group") {
        findings.error(Rule::Ssrc, "a group of SSRCs");
    }
    if answer.all("msid").count() > 1 {
        findings.error(Rule::Msid, "more than one stream or track");
    }
}
