//! An offer, read into what a call needs and nothing else.
//!
//! Strict where a mistake would cost the call or its safety (keys, direction, one audio line, contradictions), tolerant
//! where live offers differ (line ends, levels, extensions, unknown attributes). What is kept as text is bounded and
//! printable, since the answer repeats it. Knows no policy: candidates are kept as offered.

use std::fmt;

use super::candidate::{CandidateLine, RemoteCandidate};
use super::lines::{Attribute, Description, Section};
use super::offer_error::{OfferError, excerpt};
use super::opus_params::OpusParams;

/// Longest `mid` taken, in bytes. Live ones are `audio` and `0`; some browsers wrote a UUID in braces.
pub const MID_BYTES_MAX: usize = 64;
/// Longest `fmtp` taken, in bytes: it is copied into the answer. WhatsApp's has 104.
pub const FMTP_BYTES_MAX: usize = 512;
/// Duration of the packets we send, in milliseconds.
pub const PTIME_MS: u32 = 20;

/// An offer we can answer.
#[derive(Clone, Debug)]
pub struct Offer {
    /// Transport profile of the audio line, to be repeated by the answer.
    pub profile: Profile,
    /// `a=mid` of the audio line as offered, at most [`MID_BYTES_MAX`] bytes; an answer has one only if the offer has.
    pub mid: Option<String>,
    /// Whether a BUNDLE group names this mid.
    pub bundled: bool,
    /// Whether the offerer is an ICE-lite agent: then we control, and its candidates are the only way to it.
    pub ice_lite: bool,
    /// The offerer's ICE credentials.
    pub ice: IceCredentials,
    /// sha-256 of the offerer's DTLS certificate.
    pub fingerprint: [u8; 32],
    /// The DTLS role offered.
    pub setup: Setup,
    /// UDP candidates of component 1, in the order of the text, not judged yet (see [`Policy`](super::Policy)).
    pub candidates: Vec<RemoteCandidate>,
    /// How many candidates were `.local` names, which are never resolved.
    pub mdns_candidates: u32,
    /// How many candidates were TCP, another component, another name, or malformed.
    pub unused_candidates: u32,
    /// The Opus format to use.
    pub opus: OpusFormat,
    /// The telephone-event format with the 8000 Hz clock.
    pub telephone_event: Option<TelephoneEvent>,
    /// The first SSRC announced for the audio line.
    pub ssrc: Option<u32>,
    /// `a=ptime`, in milliseconds.
    pub ptime: Option<u32>,
    /// `a=maxptime`, in milliseconds, at least [`PTIME_MS`].
    pub maxptime: Option<u32>,
}

/// Transport profile of the audio line (RFC 5764).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profile {
    /// `UDP/TLS/RTP/SAVPF`.
    Savpf,
    /// `UDP/TLS/RTP/SAVP`.
    Savp,
}

impl Profile {
    /// As the m-line says it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Savpf => "UDP/TLS/RTP/SAVPF",
            Self::Savp => "UDP/TLS/RTP/SAVP",
        }
    }
}

/// Who opens the DTLS handshake, as the offer has it (RFC 4145, RFC 5763).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Setup {
    /// Either; we choose to open it.
    ActPass,
    /// The offerer opens it: we must wait, as DTLS server.
    Active,
    /// The offerer waits: we must open it.
    Passive,
}

impl Setup {
    /// Whether we are the DTLS client.
    pub const fn we_are_client(self) -> bool {
        !matches!(self, Self::Active)
    }
}

/// ICE username fragment and password. `Debug` shows neither.
#[derive(Clone, PartialEq, Eq)]
pub struct IceCredentials {
    /// Username fragment, 4 to 256 bytes.
    pub ufrag: String,
    /// Password, 22 to 256 bytes.
    pub pwd: String,
}

impl fmt::Debug for IceCredentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(hidden)")
    }
}

/// An offered `opus/48000/2`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpusFormat {
    /// RTP payload type, below 128 and not 64 to 95.
    pub payload_type: u8,
    /// Its `fmtp` parameters verbatim, at most [`FMTP_BYTES_MAX`] bytes of printable ASCII.
    pub fmtp: Option<String>,
    /// What the same `fmtp` means for our encoder.
    pub params: OpusParams,
    /// `rtcp-fb` values for this payload type or for all, such as `transport-cc`.
    pub rtcp_fb: Vec<String>,
}

/// An offered `telephone-event/8000`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TelephoneEvent {
    /// RTP payload type, below 128 and not 64 to 95.
    pub payload_type: u8,
    /// Its `fmtp` verbatim, such as `0-16`; bounded as that of Opus.
    pub fmtp: Option<String>,
}

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
            ssrc: audio.all("ssrc").find_map(|ssrc| first_word(ssrc.value).parse().ok()),
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
        match port.parse::<u16>() {
            Ok(0) => fail("has port 0, which means that the audio is switched off; offer it with a port (9 will do)"),
            Ok(_) => Ok(Self { line: audio.line, profile, formats }),
            Err(_) => fail("has a port that is no number from 1 to 65535"),
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
            let payload_type = word.parse::<u8>().ok().filter(|pt| *pt < 128);
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

/// Checks that audio flows both ways. Nothing said means `sendrecv`.
fn direction(levels: &Levels<'_>) -> Result<(), OfferError> {
    for section in [levels.audio, levels.session] {
        let mut said = false;
        for attribute in &section.attributes {
            let direction = match attribute.name {
                "sendonly" => "sendonly",
                "recvonly" => "recvonly",
                "inactive" => "inactive",
                "sendrecv" => {
                    said = true;
                    continue;
                }
                _ => continue,
            };
            return Err(OfferError::Direction { line: attribute.line, direction });
        }
        if said {
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
        let Ok(payload_type) = payload_type.parse::<u8>() else { continue };
        // 64 to 95 would look like RTCP on a shared port (RFC 5761, section 4).
        if payload_type < 128 && !(64..=95).contains(&payload_type) {
            maps[usize::from(payload_type)].get_or_insert(encoding.trim());
        }
    }
    maps
}

/// The `fmtp` of a payload type.
fn fmtp(audio: &Section<'_>, payload_type: u8) -> Result<Option<String>, OfferError> {
    for fmtp in audio.all("fmtp") {
        let (of, params) = fmtp.value.split_once(' ').unwrap_or((fmtp.value, ""));
        if of.parse() != Ok(payload_type) {
            continue;
        }
        let params = params.trim();
        let printable = params.bytes().all(|b| b.is_ascii_graphic() || b == b' ');
        if params.len() > FMTP_BYTES_MAX || !printable {
            let problem = "is longer than 512 bytes or not plain ASCII; the answer would have to repeat it";
            return Err(OfferError::Attribute { line: fmtp.line, attribute: "fmtp", problem });
        }
        return Ok((!params.is_empty()).then(|| params.to_owned()));
    }
    Ok(None)
}

/// What feedback the offer allows for a payload type.
fn rtcp_fb(audio: &Section<'_>, payload_type: u8) -> Vec<String> {
    let of_ours = |fb: &Attribute<'_>| {
        let (of, feedback) = fb.value.split_once(' ')?;
        (of == "*" || of.parse() == Ok(payload_type)).then(|| feedback.trim().to_owned())
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
        let digest = hex_digest(digest.trim())
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
    let whole = attribute.value.split('.').next().unwrap_or("").parse().ok();
    if name == "maxptime" && whole.is_some_and(|ms: u32| ms < PTIME_MS) {
        let problem = "is below 20 ms, the length of the packets sent here";
        return Err(OfferError::Attribute { line: attribute.line, attribute: name, problem });
    }
    Ok(whole)
}

fn first_word(text: &str) -> &str {
    text.split_ascii_whitespace().next().unwrap_or("")
}
