//! What a webhook's body says: every call event of every entry and change, and whether there is anything else.
//!
//! Meta adds fields and kinds of events without notice. So only text that is no JSON object is an error: a piece that cannot
//! be read is counted, and all around it is read. The signature is checked before; SDP is not looked into.

#[cfg(test)]
pub(super) mod samples;
#[cfg(test)]
mod tests;

use std::collections::HashSet;

use aws_lc_rs::digest;
use serde_json::value::RawValue;

use crate::call_id::CallId;
use crate::messages::Parcel;

use super::json::{each, integer, members, text};
use super::words;

/// Most call events taken of one body; what is beyond counts as unusable. Meta puts at most 1,000 updates into one.
pub const EVENTS_MAX: usize = 1000;
/// Most senders told apart; Meta puts at most 1,000 updates into a body.
pub const SENDERS_MAX: usize = 1000;
/// Stands among the senders of a body that is about more than are told apart.
pub const ANYBODY: u64 = Parcel::ANYBODY;
/// Most errors kept of how a call ended. Meta sends one, twice.
const ERRORS_MAX: usize = 8;

/// A body, read.
#[derive(Debug, Default)]
pub struct Delivery {
    /// Call events, in the order they stand: at most [`EVENTS_MAX`].
    pub events: Vec<CallEvent>,
    /// Whether it holds anything that is no call event of a user's call: messages, statuses, other fields.
    pub has_others: bool,
    /// Events of users' calls that cannot be used: without id, number or offer, or more than are taken.
    pub unusable: usize,
    /// Whom it is about, hashed, each once: at most [`SENDERS_MAX`], and [`ANYBODY`] where there are more.
    pub senders: Vec<u64>,
}

/// A call event.
#[derive(Clone, Debug)]
pub struct CallEvent {
    /// The business's number, as Meta's id.
    pub phone_number_id: String,
    /// The call.
    pub call: CallId,
    /// When it happened, by Meta's clock: seconds since 1970.
    pub timestamp_sec: Option<u64>,
    /// What happened.
    pub kind: CallEventKind,
}

/// What happened to a call.
#[derive(Clone, Debug)]
pub enum CallEventKind {
    /// A user calls.
    Connect {
        /// Their offer.
        offer: Offer,
    },
    /// The call is over.
    Terminate(Termination),
}

/// SDP: never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Offer(pub String);

impl std::fmt::Debug for Offer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Offer({} bytes)", self.0.len())
    }
}

/// How Meta says that a call ended. Texts are Meta's, bounded, without control characters or phone numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Termination {
    /// `COMPLETED` or `FAILED`.
    pub status: Option<String>,
    /// How long it was, in seconds.
    pub duration_sec: Option<u64>,
    /// What went wrong; of both places where Meta puts it, each once.
    pub errors: Vec<MetaError>,
}

/// An error in Meta's words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MetaError {
    /// Its number.
    pub code: i64,
    /// Its title or message, and its details.
    pub text: String,
}

/// Reads a body. The error is a sentence for its sender and quotes nothing of the body.
pub fn parse(body: &[u8]) -> Result<Delivery, String> {
    let body = str::from_utf8(body).map_err(|error| {
        format!("The body is not UTF-8 after its first {} bytes; send JSON in UTF-8.", error.valid_up_to())
    })?;
    let whole: &RawValue = serde_json::from_str(body).map_err(|error| {
        format!("The body is not valid JSON at line {}, column {}; send a JSON object.", error.line(), error.column())
    })?;
    let body = members(whole.get(), ["object", "entry"])
        .ok_or("The body must be a JSON object that has neither \"object\" nor \"entry\" twice.")?;
    let [object, entries] = body.found;
    let mut reader = Reader::default();
    // An app may be subscribed to other products of Meta by the same address.
    if object.is_none_or(|object| text(object).is_some_and(|object| object == "whatsapp_business_account")) {
        let is_list = entries.is_some_and(|entries| each(entries, |entry| reader.entry(entry.get())));
        reader.delivery.has_others |= !is_list;
    } else {
        reader.delivery.has_others = true;
    }
    if reader.delivery.senders.is_empty() {
        reader.sender("");
    }
    Ok(reader.delivery)
}

/// Collects while the body is walked through.
#[derive(Default)]
struct Reader {
    delivery: Delivery,
    known: HashSet<u64>,
}

impl Reader {
    fn entry(&mut self, entry: &str) {
        let Some([id, changes]) = members(entry, ["id", "changes"]).map(|entry| entry.found) else {
            self.delivery.has_others = true;
            return;
        };
        let account = id.and_then(text).unwrap_or_default();
        let is_list = changes.is_some_and(|changes| each(changes, |change| self.change(change.get(), &account)));
        self.delivery.has_others |= !is_list;
    }

    fn change(&mut self, change: &str, account: &str) {
        let found = members(change, ["field", "value"]).map(|change| change.found);
        let Some([field, Some(value)]) = found else {
            self.others_of(account);
            return;
        };
        let names = ["messaging_product", "metadata", "contacts", "errors", "calls", "statuses", "messages"];
        let Some(value) = members(value.get(), names) else {
            self.others_of(account);
            return;
        };
        let [_, metadata, _, errors, calls, statuses, messages] = value.found;
        let number = metadata
            .and_then(|metadata| members(metadata.get(), ["phone_number_id"]))
            .and_then(|metadata| metadata.found[0].and_then(text))
            .filter(|id| is_number_id(id));
        let mut about_nobody = true;
        for (list, who) in
            [(messages, ["from", "from_user_id", "id"]), (statuses, ["recipient_id", "recipient_user_id", "id"])]
        {
            if let Some(list) = list {
                self.delivery.has_others = true;
                each(list, |item| about_nobody &= !self.sender_of(item.get(), who));
            }
        }
        if field.and_then(text).is_some_and(|field| field == "calls") {
            let mut list = Calls { number: number.as_deref(), errors, terminated: Vec::new() };
            let is_list = calls.is_some_and(|calls| {
                each(calls, |call| {
                    about_nobody = false;
                    self.call(call.get(), &mut list);
                })
            });
            self.delivery.has_others |= value.has_others || !is_list;
            self.add_errors(&list);
        } else {
            self.delivery.has_others = true;
        }
        if about_nobody {
            self.sender(number.as_deref().unwrap_or(account));
        }
    }

    fn call(&mut self, call: &str, list: &mut Calls<'_>) {
        let names = ["id", "event", "direction", "timestamp", "session", "status", "duration", "errors"];
        let Some([id, event, direction, timestamp, session, status, duration, errors]) =
            members(call, names).map(|call| call.found)
        else {
            self.delivery.unusable += 1;
            self.sender(list.number.unwrap_or_default());
            return;
        };
        let is_user_call = direction.is_none_or(|word| text(word).is_some_and(|word| word == "USER_INITIATED"));
        let user = if is_user_call { ["from", "from_user_id", "id"] } else { ["to", "to_user_id", "id"] };
        if !self.sender_of(call, user) {
            self.sender(list.number.unwrap_or_default());
        }
        let event = event.and_then(text);
        let kind = match event.as_deref() {
            Some("connect") if is_user_call => session.and_then(offer).map(|offer| CallEventKind::Connect { offer }),
            Some("terminate") if is_user_call => Some(CallEventKind::Terminate(Termination {
                status: status.and_then(text).map(|word| words::clean(&word)).filter(|word| !word.is_empty()),
                duration_sec: duration.and_then(integer).and_then(|sec| sec.try_into().ok()),
                errors: errors.map(meta_errors).unwrap_or_default(),
            })),
            _ => {
                self.delivery.has_others = true;
                return;
            }
        };
        let call = id.and_then(text).and_then(|id| CallId::new(&id));
        let fits = self.delivery.events.len() < EVENTS_MAX;
        let (Some(kind), Some(call), Some(number), true) = (kind, call, list.number, fits) else {
            self.delivery.unusable += 1;
            return;
        };
        if matches!(kind, CallEventKind::Terminate(_)) {
            list.terminated.push(self.delivery.events.len());
        }
        let timestamp_sec = timestamp.and_then(integer).and_then(|sec| sec.try_into().ok());
        self.delivery.events.push(CallEvent { phone_number_id: number.to_owned(), call, timestamp_sec, kind });
    }

    /// The errors beside a change's calls belong to the one that has ended. Of several, nobody says whose they are.
    fn add_errors(&mut self, list: &Calls<'_>) {
        let (&[at], Some(errors)) = (&list.terminated[..], list.errors) else { return };
        if let CallEventKind::Terminate(termination) = &mut self.delivery.events[at].kind {
            for error in meta_errors(errors) {
                push_error(&mut termination.errors, error);
            }
        }
    }

    fn others_of(&mut self, whom: &str) {
        self.delivery.has_others = true;
        self.sender(whom);
    }

    /// Notes whom an item is about, by the first of these members; says whether there is one.
    fn sender_of(&mut self, item: &str, names: [&str; 3]) -> bool {
        let found = members(item, names).map(|item| item.found).unwrap_or_default();
        let whom = found.into_iter().flatten().filter_map(text).find(|whom| !whom.is_empty());
        whom.inspect(|whom| self.sender(whom)).is_some()
    }

    fn sender(&mut self, whom: &str) {
        let mut sender = hash(whom);
        if self.known.len() >= SENDERS_MAX && !self.known.contains(&sender) {
            sender = ANYBODY;
        }
        if self.known.insert(sender) {
            self.delivery.senders.push(sender);
        }
    }
}

/// What is known while the calls of a change are read.
struct Calls<'a> {
    number: Option<&'a str>,
    /// Those beside the calls.
    errors: Option<&'a RawValue>,
    /// Where their terminate events stand.
    terminated: Vec<usize>,
}

/// Meta's ids are digits, and they go into paths.
pub(super) fn is_number_id(text: &str) -> bool {
    (1..=32).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit())
}

fn offer(session: &RawValue) -> Option<Offer> {
    let [kind, sdp] = members(session.get(), ["sdp_type", "sdp"])?.found;
    let is_offer = kind.and_then(text).is_some_and(|kind| kind == "offer");
    let sdp = sdp.and_then(text).filter(|sdp| is_offer && !sdp.is_empty())?;
    Some(Offer(sdp.into_owned()))
}

fn meta_errors(list: &RawValue) -> Vec<MetaError> {
    let mut errors = Vec::new();
    each(list, |error| {
        if let Some(error) = meta_error(error.get()) {
            push_error(&mut errors, error);
        }
    });
    errors
}

/// An error as webhooks and the Graph API write it; one without code is none.
pub(super) fn meta_error(error: &str) -> Option<MetaError> {
    let [code, title, message, data] = members(error, ["code", "title", "message", "error_data"])?.found;
    let code = code.and_then(integer)?;
    let said = |value: Option<&RawValue>| {
        let text = value.and_then(text).unwrap_or_default();
        text.into_owned()
    };
    let details = data.and_then(|data| members(data.get(), ["details"])).and_then(|data| data.found[0]);
    let [title, message, details] = [title, message, details].map(said);
    let message = if message.trim().is_empty() { title } else { message };
    Some(MetaError { code, text: words::joined([&message, &details]) })
}

fn push_error(errors: &mut Vec<MetaError>, error: MetaError) {
    if errors.len() < ERRORS_MAX && !errors.contains(&error) {
        errors.push(error);
    }
}

/// Never [`ANYBODY`].
fn hash(whom: &str) -> u64 {
    let digest = digest::digest(&digest::SHA256, whom.as_bytes());
    let (first, _) = digest.as_ref().split_first_chunk().expect("SHA-256 has 32 bytes");
    u64::from_be_bytes(*first).max(1)
}
