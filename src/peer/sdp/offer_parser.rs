//! Text of an offer to an [`Offer`].
//!
//! Strict where a mistake would cost the call or its safety (keys, direction, one audio line, contradictions), tolerant
//! where live offers differ (line ends, levels, extensions, unknown attributes). Work is linear in the text: each
//! attribute list is bounded and walked a constant number of times.

use super::candidate::CandidateLine;
use super::lines::{Attribute, Description, Section, decimal};
use super::offer::{
    FMTP_BYTES_MAX, IceCredentials, MID_BYTES_MAX, Offer, OpusFormat, PTIME_MS, Profile, Setup, TelephoneEvent,
};
use super::offer_error::{OfferError, excerpt};
use super::opus_params::OpusParams;

impl Offer {
    /// Reads an offer in time linear in its length. The error names the line at fault and the way out.
    pub fn parse(text: &str) -> Result<Self, OfferError> {
        let Description { session, media } = Description::read(text)?;
        let audio = only_audio(&media)?;
        let levels = Levels { session: &session, audio };
        let media_line = MediaLine::parse(audio)?;
        let profile = profile(&levels, &media_line)?;
        let formats = media_line.formats()?;
        direction(&levels)?;
        if audio.all("rtcp-mux").next().is_none() {
            return Err(OfferError::NoRtcpMux);
        }

        let rtpmaps = rtpmaps(audio);
        let with_name = |names: &[&str]| {
            let is_named = |map: &str| names.iter().any(|name| name.eq_ignore_ascii_case(map));
            formats.iter().copied().find(|pt| rtpmaps[usize::from(*pt)].is_some_and(is_named))
        };
        let opus = with_name(&["opus/48000/2"]).ok_or(OfferError::NoOpus { line: audio.line })?;
        let opus_fmtp = fmtp(audio, opus)?;
        let telephone_event = match with_name(&["telephone-event/8000", "telephone-event/8000/1"]) {
            Some(payload_type) => Some(TelephoneEvent { payload_type, fmtp: fmtp(audio, payload_type)? }),
            None => None,
        };

        let mid = mid(audio)?;
        let mut offer = Self {
            profile,
            bundled: mid.as_deref().is_some_and(|mid| is_bundled(&session, mid)),
            mid,
            ice_lite: levels.flag("ice-lite"),
            ice: ice(&levels)?,
            fingerprint: fingerprint(&levels)?,
            setup: setup(&levels)?,
            candidates: Vec::new(),
            mdns_candidates: 0,
            unused_candidates: 0,
            opus: OpusFormat {
                payload_type: opus,
                params: opus_fmtp.as_deref().map(OpusParams::parse).unwrap_or_default(),
                fmtp: opus_fmtp,
                rtcp_fb: rtcp_fb(audio, opus),
            },
            telephone_event,
            ssrc: audio.all("ssrc").find_map(|ssrc| decimal(first_word(ssrc.value))),
            ptime: milliseconds(audio, "ptime")?,
            maxptime: milliseconds(audio, "maxptime")?,
        };
        for candidate in audio.all("candidate") {
            match CandidateLine::parse(candidate.value) {
                CandidateLine::Udp(candidate) => offer.candidates.push(candidate),
                CandidateLine::Mdns => offer.mdns_candidates += 1,
                CandidateLine::Unused => offer.unused_candidates += 1,
            }
        }
        Ok(offer)
    }
}

/// The session section and the audio section: some attributes may stand in either, and the nearer one wins.
struct Levels<'a> {
    session: &'a Section<'a>,
    audio: &'a Section<'a>,
}

impl<'a> Levels<'a> {
    fn one(&self, name: &'static str) -> Result<Option<&Attribute<'a>>, OfferError> {
        Ok(self.audio.one(name)?.or(self.session.one(name)?))
    }

    /// All of that name at the audio level; those at the session level when it has none.
    fn nearest(&self, name: &'static str) -> impl Iterator<Item = &Attribute<'a>> {
        let section = if self.audio.all(name).next().is_some() { self.audio } else { self.session };
        section.all(name)
    }

    fn flag(&self, name: &'static str) -> bool {
        self.audio.all(name).chain(self.session.all(name)).next().is_some()
    }
}

/// The only m-line, if it is audio. One answer line cannot answer two, and a missing one would break the offerer's count.
fn only_audio<'a>(media: &'a [Section<'a>]) -> Result<&'a Section<'a>, OfferError> {
    for section in media {
        let kind = first_word(section.media);
        if kind != "audio" {
            return Err(OfferError::OtherMedia { line: section.line, kind: excerpt(kind) });
        }
    }
    match media {
        [] => Err(OfferError::NoAudio),
        [audio] => Ok(audio),
        [_, second, ..] => Err(OfferError::SeveralAudio { line: second.line }),
    }
}

/// `audio port profile formats…`
struct MediaLine<'a> {
    line: u32,
    profile: &'a str,
    formats: &'a str,
}

impl<'a> MediaLine<'a> {
    fn parse(audio: &Section<'a>) -> Result<Self, OfferError> {
        let fail = |problem| Err(OfferError::Attribute { line: audio.line, attribute: "m=audio", problem });
        let mut words = audio.media.splitn(4, ' ').skip(1);
        let (Some(port), Some(profile), Some(formats)) = (words.next(), words.next(), words.next()) else {
            return fail("must be `m=audio port profile payload-types`");
        };
        match decimal::<u16>(port) {
            Some(0) => fail("has port 0, which means that the audio is switched off; offer it with a port (9 will do)"),
            Some(_) => Ok(Self { line: audio.line, profile, formats }),
            None => fail("has a port that is no number from 1 to 65535"),
        }
    }

    /// The payload types, in order of preference.
    fn formats(&self) -> Result<Vec<u8>, OfferError> {
        let fail = |problem| OfferError::Attribute { line: self.line, attribute: "m=audio", problem };
        let mut formats = Vec::new();
        for word in self.formats.split_ascii_whitespace() {
            if formats.len() == 128 {
                return Err(fail("lists more than 128 payload types"));
            }
            let payload_type = decimal::<u8>(word).filter(|pt| *pt < 128);
            formats.push(payload_type.ok_or_else(|| fail("lists a payload type that is no number from 0 to 127"))?);
        }
        Ok(formats)
    }
}

/// Checks that keys come by DTLS.
fn profile(levels: &Levels<'_>, media: &MediaLine<'_>) -> Result<Profile, OfferError> {
    let line = media.line;
    let has_fingerprint = levels.nearest("fingerprint").next().is_some();
    let crypto = levels.audio.all("crypto").next();
    match media.profile {
        "UDP/TLS/RTP/SAVPF" | "UDP/TLS/RTP/SAVP" if !has_fingerprint => Err(match crypto {
            Some(crypto) => OfferError::Sdes { line: crypto.line },
            None => OfferError::NoFingerprint,
        }),
        "UDP/TLS/RTP/SAVPF" => Ok(Profile::Savpf),
        "UDP/TLS/RTP/SAVP" => Ok(Profile::Savp),
        "RTP/SAVP" | "RTP/SAVPF" if !has_fingerprint => Err(OfferError::Sdes { line }),
        "RTP/AVP" | "RTP/AVPF" => Err(OfferError::NotEncrypted { line, profile: media.profile.to_owned() }),
        other => Err(OfferError::Profile { line, profile: excerpt(other) }),
    }
}

/// Checks that audio flows both ways. Nothing said means `sendrecv`; the session level counts where the audio is silent.
fn direction(levels: &Levels<'_>) -> Result<(), OfferError> {
    for section in [levels.audio, levels.session] {
        for direction in ["sendonly", "recvonly", "inactive"] {
            if let Some(attribute) = section.all(direction).next() {
                return Err(OfferError::Direction { line: attribute.line, direction });
            }
        }
        if section.all("sendrecv").next().is_some() {
            break;
        }
    }
    Ok(())
}

/// The encoding of each payload type, where the offer gives one; of repeated ones the first counts.
fn rtpmaps<'a>(audio: &Section<'a>) -> [Option<&'a str>; 128] {
    let mut maps = [None; 128];
    for rtpmap in audio.all("rtpmap") {
        let Some((payload_type, encoding)) = rtpmap.value.split_once(' ') else { continue };
        let Some(payload_type) = decimal::<u8>(payload_type) else { continue };
        // 64 to 95 would look like RTCP on a shared port (RFC 5761, section 4).
        if payload_type < 128 && !(64..=95).contains(&payload_type) {
            maps[usize::from(payload_type)].get_or_insert(encoding.trim_matches(' '));
        }
    }
    maps
}

/// The `fmtp` of a payload type.
fn fmtp(audio: &Section<'_>, payload_type: u8) -> Result<Option<String>, OfferError> {
    for fmtp in audio.all("fmtp") {
        let Some((of, params)) = fmtp.value.split_once(' ') else { continue };
        if decimal(of) != Some(payload_type) {
            continue;
        }
        let params = params.trim_matches(' ');
        let printable = params.bytes().all(|b| b.is_ascii_graphic() || b == b' ');
        if params.len() > FMTP_BYTES_MAX || !printable {
            let problem = "is longer than 512 bytes or not plain ASCII; the answer would have to repeat it";
            return Err(OfferError::Attribute { line: fmtp.line, attribute: "fmtp", problem });
        }
        return Ok(Some(params.to_owned())); // never empty: the value ends in no space
    }
    Ok(None)
}

/// What feedback the offer allows for a payload type.
fn rtcp_fb(audio: &Section<'_>, payload_type: u8) -> Vec<String> {
    let of_ours = |fb: &Attribute<'_>| {
        let (of, feedback) = fb.value.split_once(' ')?;
        (of == "*" || decimal(of) == Some(payload_type)).then(|| feedback.trim_matches(' ').to_owned())
    };
    audio.all("rtcp-fb").filter_map(of_ours).collect()
}

fn mid(audio: &Section<'_>) -> Result<Option<String>, OfferError> {
    let Some(mid) = audio.one("mid")? else { return Ok(None) };
    let plain = mid.value.bytes().all(|b| b.is_ascii_graphic());
    if mid.value.is_empty() || mid.value.len() > MID_BYTES_MAX || !plain {
        let problem = "must be 1 to 64 printable ASCII characters without spaces";
        return Err(OfferError::Attribute { line: mid.line, attribute: "mid", problem });
    }
    Ok(Some(mid.value.to_owned()))
}

fn is_bundled(session: &Section<'_>, mid: &str) -> bool {
    session.all("group").any(|group| {
        let mut words = group.value.split_ascii_whitespace();
        words.next() == Some("BUNDLE") && words.any(|word| word == mid)
    })
}

/// The ICE credentials. RFC 8839 allows letters, digits, `+` and `/`; WhatsApp's passwords end in `==`. They are never
/// written by us, so all printable ASCII is taken, but for the colon in a ufrag, which STUN uses as separator.
fn ice(levels: &Levels<'_>) -> Result<IceCredentials, OfferError> {
    let take = |name, length_min: usize, problem| {
        let attribute = levels.one(name)?.ok_or(OfferError::NoIce { attribute: name })?;
        let text = attribute.value;
        let plain = text.bytes().all(|b| b.is_ascii_graphic() && (b != b':' || name == "ice-pwd"));
        if plain && (length_min..=256).contains(&text.len()) {
            Ok(text.to_owned())
        } else {
            Err(OfferError::Attribute { line: attribute.line, attribute: name, problem })
        }
    };
    Ok(IceCredentials {
        ufrag: take("ice-ufrag", 4, "must be 4 to 256 letters, digits, + or /")?,
        pwd: take("ice-pwd", 22, "must be 22 to 256 letters, digits, + or /")?,
    })
}

/// The sha-256 fingerprint among those offered. The two spellings of case that live offers use are one.
fn fingerprint(levels: &Levels<'_>) -> Result<[u8; 32], OfferError> {
    let mut found = None;
    let mut first_other = None;
    for fingerprint in levels.nearest("fingerprint") {
        let line = fingerprint.line;
        let (hash, digest) = fingerprint.value.split_once(' ').unwrap_or((fingerprint.value, ""));
        if !hash.eq_ignore_ascii_case("sha-256") {
            first_other.get_or_insert(OfferError::NoSha256 { line, hash: excerpt(hash) });
            continue;
        }
        let fail = |problem| OfferError::Attribute { line, attribute: "fingerprint", problem };
        let digest = hex_digest(digest.trim_matches(' '))
            .ok_or_else(|| fail("must be 32 bytes in hex with colons between, such as `sha-256 0A:1B:…`"))?;
        if *found.get_or_insert(digest) != digest {
            return Err(fail("is a second one by sha-256 that differs from the first; send one"));
        }
    }
    found.ok_or_else(|| first_other.unwrap_or(OfferError::NoFingerprint))
}

/// Reads `0A:1b:…`, 32 bytes.
fn hex_digest(text: &str) -> Option<[u8; 32]> {
    let mut digest = [0; 32];
    let mut pairs = text.split(':');
    for byte in &mut digest {
        let pair = pairs.next().filter(|pair| pair.len() == 2 && pair.bytes().all(|b| b.is_ascii_hexdigit()))?;
        *byte = u8::from_str_radix(pair, 16).ok()?;
    }
    pairs.next().is_none().then_some(digest)
}

/// The DTLS role. Browsers must write `actpass`; where the line is missing they take that for granted, and so do we.
fn setup(levels: &Levels<'_>) -> Result<Setup, OfferError> {
    let Some(setup) = levels.one("setup")? else { return Ok(Setup::ActPass) };
    match setup.value {
        "actpass" => Ok(Setup::ActPass),
        "active" => Ok(Setup::Active),
        "passive" => Ok(Setup::Passive),
        _ => {
            let problem = "must be actpass, active or passive";
            Err(OfferError::Attribute { line: setup.line, attribute: "setup", problem })
        }
    }
}

/// `ptime` or `maxptime`. A fraction is no reason to refuse; a maximum below the packets we send is.
fn milliseconds(audio: &Section<'_>, name: &'static str) -> Result<Option<u32>, OfferError> {
    let Some(attribute) = audio.all(name).next() else { return Ok(None) };
    let whole = attribute.value.split('.').next().and_then(decimal);
    if name == "maxptime" && whole.is_some_and(|ms: u32| ms < PTIME_MS) {
        let problem = "is below 20 ms, the length of the packets sent here";
        return Err(OfferError::Attribute { line: attribute.line, attribute: name, problem });
    }
    Ok(whole)
}

fn first_word(text: &str) -> &str {
    text.split_ascii_whitespace().next().unwrap_or("")
}
