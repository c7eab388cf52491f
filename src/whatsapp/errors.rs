//! What each of Meta's errors means, what an operator does about it, and whether trying again can help.
//!
//! Meta documents most of them in a line and some not at all; how each is known stands beside it.

use super::graph::{Meaning, Retry};

/// How an error is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Known {
    /// Meta's pages name it.
    Documented,
    /// It has been seen on live calls, and no page names it.
    Seen,
    /// Its meaning is concluded from its neighbours.
    Inferred,
}

/// What an error says of the call that it is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OfCall {
    /// Nothing.
    Nothing,
    /// When it is to be ended: that there is nothing to end in this way. Meta documents no code for a call that is not
    /// there; with nothing to refuse but the call's id, these are taken for it. (Inferred.)
    PerhapsGone,
    /// That there is no such call any more.
    Gone,
}

/// An error.
#[derive(Debug)]
pub(super) struct Row {
    pub(super) code: i64,
    /// `error_subcode`, where it tells more than the code.
    pub(super) subcode: Option<i64>,
    /// How it is known: for readers of this table and its tests.
    #[cfg_attr(not(test), expect(dead_code, reason = "of the table's readers"))]
    pub(super) known: Known,
    /// What it says of the call that it is about.
    pub(super) of_call: OfCall,
    pub(super) meaning: Meaning,
}

const fn row(code: i64, known: Known, label: &'static str, retry: Retry, advice: &'static str) -> Row {
    Row { code, subcode: None, known, of_call: OfCall::Nothing, meaning: Meaning { label, advice, retry } }
}

impl Row {
    const fn of_subcode(mut self, subcode: i64) -> Self {
        self.subcode = Some(subcode);
        self
    }

    const fn gone(mut self) -> Self {
        self.of_call = OfCall::Gone;
        self
    }

    const fn perhaps_gone(mut self) -> Self {
        self.of_call = OfCall::PerhapsGone;
        self
    }
}

use Known::{Documented, Inferred, Seen};
use Retry::{Later, No};

/// Every error that is known. The first row that fits counts.
pub(super) static ROWS: &[Row] = &[
    // Of calls.
    row(
        138_000,
        Documented,
        "calling_not_enabled",
        No,
        "Calling is not enabled for this phone number: switch it on in the number's call settings at Meta.",
    ),
    row(
        138_001,
        Documented,
        "receiver_uncallable",
        No,
        "The user's WhatsApp cannot take calls: an old app, a device without calling, or terms not accepted.",
    ),
    row(
        138_002,
        Documented,
        "concurrent_calls_limit",
        Later,
        "The phone number has as many calls as Meta allows (1,000): let calls end, or spread them over more numbers.",
    ),
    row(
        138_003,
        Documented,
        "duplicate_call",
        No,
        "Meta says that the call is there already: if another service also answers this number's calls, stop one of the two.",
    )
    .perhaps_gone(),
    row(
        138_004,
        Documented,
        "connection_error",
        Later,
        "Meta could not connect the call: it is tried again; if it lasts, look at Meta's status page.",
    ),
    row(
        138_005,
        Documented,
        "call_rate_limit",
        Later,
        "Too many calls in a short time for this phone number: it is tried again later; spread calls over more numbers.",
    ),
    row(
        138_006,
        Documented,
        "no_call_permission",
        No,
        "The user has not allowed calls from this business: only calls that users begin need no permission.",
    ),
    row(
        138_007,
        Documented,
        "connect_timeout",
        No,
        "Meta did not get our answer applied in time: look how long accept took, and at the network to the Graph API.",
    )
    .gone(),
    row(
        138_008,
        Seen,
        "sdp_invalid",
        No,
        "Meta does not take the SDP of our answer: this is a fault of the bridge; report it with its version and Meta's words.",
    ),
    row(
        138_009,
        Documented,
        "permission_request_limit",
        No,
        "The user has been asked for call permission as often as Meta allows: wait a day.",
    ),
    row(
        138_011,
        Documented,
        "no_open_conversation",
        No,
        "There is no open conversation with the user: call permission can be asked for within 24 hours of their message.",
    ),
    row(
        138_012,
        Documented,
        "business_calls_limit",
        No,
        "The business has connected as many calls to this user today as Meta allows: wait a day.",
    ),
    row(
        138_013,
        Documented,
        "business_calls_unavailable",
        No,
        "Calls begun by the business are not available for this number or country: users can still call it.",
    ),
    row(
        138_014,
        Documented,
        "calling_disabled_for_quality",
        No,
        "Meta has switched calling off for a while because of low quality: look at the number's call quality at Meta.",
    ),
    row(
        138_015,
        Documented,
        "messaging_limit_too_low",
        No,
        "Calling cannot be enabled while the number's messaging limit is below 2,000 a day: raise it first.",
    ),
    row(
        138_017,
        Documented,
        "permanent_permission_exists",
        No,
        "The user has allowed calls for good already: there is nothing to ask them for.",
    ),
    row(
        138_018,
        Documented,
        "prerequisites_missing",
        No,
        "The number does not meet Meta's technical prerequisites for calling: see the number's call settings at Meta.",
    ),
    row(
        138_019,
        Documented,
        "client_setup_failed",
        No,
        "The user's WhatsApp could not set up the call: their network or app is at fault; one call alone says nothing.",
    )
    .gone(),
    row(
        138_020,
        Documented,
        "relay_failed",
        No,
        "The user's WhatsApp did not reach Meta's relay: their network is at fault; one call alone says nothing.",
    )
    .gone(),
    row(
        138_021,
        Documented,
        "no_media_received",
        No,
        "The user's WhatsApp got no media from us: check that UDP from the media ports to Meta's networks is open.",
    )
    .gone(),
    row(
        138_022,
        Documented,
        "media_transmit_timeout",
        No,
        "Media stopped during the call: check the path of UDP between the media ports and Meta's networks for losses.",
    )
    .gone(),
    row(
        138_023,
        Documented,
        "accepted_without_media",
        No,
        "The call was accepted and no media came up: check that UDP from the media ports to Meta's networks is open.",
    )
    .gone(),
    // Of parameters.
    row(
        100,
        Seen,
        "fingerprint_not_sha256",
        No,
        "Meta takes SHA-256 fingerprints only: this is a fault of the bridge; report it with its version and Meta's words.",
    )
    .of_subcode(2_494_010),
    row(
        100,
        Documented,
        "unknown_phone_number_id",
        No,
        "Meta does not know this phone number id, or the access token may not see it: check both in the file of numbers.",
    )
    .of_subcode(33),
    row(
        33,
        Documented,
        "object_unknown",
        No,
        "Meta does not know this phone number id any more: check it in the file of numbers.",
    ),
    row(
        100,
        Documented,
        "invalid_parameter",
        No,
        "Meta refuses a parameter: the call may be over; if every call has it, check the Graph API's version and the number ids.",
    )
    .perhaps_gone(),
    row(
        131_009,
        Documented,
        "parameter_value_invalid",
        No,
        "Meta refuses the value of a parameter: check the phone number id and the version in the Graph API's address.",
    )
    .perhaps_gone(),
    row(
        131_030,
        Documented,
        "recipient_not_allowed",
        No,
        "A test number talks only to the recipients on its list: add the caller's number there, at Meta.",
    ),
    row(
        131_044,
        Documented,
        "no_payment_method",
        No,
        "The business account has no valid payment method: add one at Meta.",
    ),
    row(
        131_055,
        Documented,
        "graph_calls_not_allowed",
        No,
        "Meta does not take this request for the number: if its calls are set to SIP, set them back to the Graph API.",
    )
    .perhaps_gone(),
    // Of the access token and what it may do.
    row(
        190,
        Documented,
        "access_token_invalid",
        No,
        "The access token is expired or not valid: put a system user's in its place, then voice-media-bridge-upgrade, or \
         SIGHUP if a setting names its file.",
    ),
    row(
        10,
        Documented,
        "permission_denied",
        No,
        "The access token may not do this: it needs the permission whatsapp_business_messaging, and access to the number.",
    ),
    row(
        3,
        Documented,
        "capability_missing",
        No,
        "The app may not use this part of the API: add the WhatsApp product to it, and check its permissions.",
    ),
    row(
        131_005,
        Documented,
        "access_denied",
        No,
        "The access token may not do this: it needs the permission whatsapp_business_messaging, and access to the number.",
    ),
    row(
        131_031,
        Documented,
        "account_locked",
        No,
        "Meta has locked the business account: see its Account Quality page at Meta.",
    ),
    // Of rates.
    row(
        4,
        Documented,
        "app_rate_limit",
        Later,
        "The app has asked the Graph API too often: it is tried again later; look at the app's rate limits at Meta.",
    ),
    row(
        613,
        Documented,
        "permission_request_rate_limit",
        Later,
        "Call permissions were asked for too often: wait, and ask less often.",
    ),
    row(
        80_007,
        Documented,
        "account_rate_limit",
        Later,
        "The business account has asked the Graph API too often: it is tried again later.",
    ),
    row(
        130_429,
        Documented,
        "throughput_limit",
        Later,
        "The phone number has asked the Graph API too often: it is tried again later.",
    ),
    row(
        131_056,
        Documented,
        "pair_rate_limit",
        Later,
        "Too much was sent to this user in a short time: it is tried again later.",
    ),
    // Of Meta's own state.
    row(1, Documented, "api_unknown", Later, "Meta has an unknown error: it is tried again; see Meta's status page."),
    row(2, Documented, "api_unavailable", Later, "Meta's API is down for now: it is tried again; see Meta's status page."),
    row(
        131_000,
        Documented,
        "something_went_wrong",
        Later,
        "Something went wrong at Meta, and it does not say what: it is tried again; see Meta's status page.",
    ),
    row(
        131_016,
        Documented,
        "service_unavailable",
        Later,
        "A service at Meta is down for now: it is tried again; see Meta's status page.",
    ),
];

/// Of codes 200 to 299, which are all of permissions.
pub(super) static PERMISSION: Row = row(
    200,
    Documented,
    "permission_missing",
    No,
    "The access token lacks a permission: it needs whatsapp_business_messaging, and access to the number's account.",
);

/// What a status says where the code is not known, or there is none.
pub(super) static STATUSES: &[Row] = &[
    row(
        401,
        Inferred,
        "http_unauthorized",
        No,
        "The Graph API does not take the access token: check the token, and the Graph API's address.",
    ),
    row(
        403,
        Inferred,
        "http_forbidden",
        No,
        "The Graph API forbids the request: check what the access token may do, and the Graph API's address.",
    ),
    row(
        404,
        Inferred,
        "http_not_found",
        No,
        "The Graph API has nothing at this path: check the phone number id, and the version in the Graph API's address.",
    ),
    row(
        408,
        Inferred,
        "http_timeout",
        Later,
        "The Graph API did not get the request in time: it is tried again; check the network to it.",
    ),
    row(
        429,
        Inferred,
        "http_too_many_requests",
        Later,
        "The Graph API was asked too often: it is tried again later; look at the app's rate limits at Meta.",
    ),
];

/// Of statuses of 500 and above.
pub(super) static SERVER: Row = row(
    500,
    Inferred,
    "http_server_error",
    Later,
    "The Graph API has failed with an error of its own: it is tried again; see Meta's status page.",
);

/// Of everything else.
pub(super) static UNKNOWN: Row = row(
    0,
    Inferred,
    "unknown",
    No,
    "Meta's error is not known to the bridge: see Meta's words beside it, and its page on error codes.",
);

/// Every row, with labels that are all different.
pub(super) fn all() -> impl Iterator<Item = &'static Row> {
    ROWS.iter().chain([&PERMISSION]).chain(STATUSES).chain([&SERVER, &UNKNOWN])
}

/// The row of a code, where it is known.
pub(super) fn of_code(code: i64, subcode: Option<i64>) -> Option<&'static Row> {
    let fits = |row: &&Row| row.code == code && (row.subcode.is_none() || row.subcode == subcode);
    ROWS.iter().find(fits).or_else(|| (200..300).contains(&code).then_some(&PERMISSION))
}

/// The row of a status, for an error whose code is not known or absent.
pub(super) fn of_status(status: u16) -> &'static Row {
    let status = i64::from(status);
    let fits = STATUSES.iter().find(|row| row.code == status);
    fits.unwrap_or(if status >= 500 { &SERVER } else { &UNKNOWN })
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_code_of_metas_table_has_a_row() {
        let table = (138_000..=138_023).filter(|code| ![138_010, 138_016].contains(code));
        let others = [
            100, 613, 131_009, 131_030, 131_044, 131_055, 190, 10, 200, 299, 4, 80_007, 130_429, 131_056, 1, 2, 33,
            131_000, 131_031, 131_016, 131_005,
        ];
        for code in table.chain(others) {
            assert!(of_code(code, None).is_some(), "{code}");
        }
        for code in [138_010, 138_016, 138_024, 0, -1, 199, 300, i64::MAX, i64::MIN] {
            assert!(of_code(code, None).is_none(), "{code}");
        }
    }

    #[test]
    fn labels_are_distinct_metric_words_and_advice_is_a_sentence() {
        let mut labels = HashSet::new();
        for Row { code, meaning: Meaning { label, advice, .. }, .. } in all() {
            assert!(labels.insert(label), "{label} stands twice");
            assert!(label.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_'), "{label}");
            assert!(advice.starts_with(char::is_uppercase) && advice.ends_with('.'), "{code}: {advice}");
            assert!((30..=150).contains(&advice.len()) && advice.contains(' '), "{code}: {advice}");
        }
    }

    #[test]
    fn no_row_hides_behind_an_earlier_one() {
        for row in ROWS {
            assert!(std::ptr::eq(of_code(row.code, row.subcode).unwrap(), row), "{row:?}");
        }
    }

    #[test]
    fn a_subcode_tells_more_where_it_is_known() {
        for (subcode, label) in [
            (Some(2_494_010), "fingerprint_not_sha256"),
            (Some(33), "unknown_phone_number_id"),
            (Some(7), "invalid_parameter"),
            (None, "invalid_parameter"),
        ] {
            assert_eq!(of_code(100, subcode).unwrap().meaning.label, label);
        }
    }

    #[test]
    fn a_new_access_token_is_brought_in_by_a_start_where_sighup_does_not_read_it() {
        // A credential of systemd, or a variable, is what it was until the next start.
        let Meaning { advice, .. } = of_code(190, None).unwrap().meaning;
        let start = advice.find("then voice-media-bridge-upgrade").expect("a start");
        let reload = advice.find("or SIGHUP if a setting names its file").expect("SIGHUP, with its condition");
        assert!(start < reload, "{advice}");
    }

    #[test]
    fn what_is_tried_again_is_what_passes() {
        let later: Vec<_> = all().filter(|row| row.meaning.retry == Later).map(|row| row.meaning.label).collect();
        assert_eq!(
            later,
            [
                "concurrent_calls_limit",
                "connection_error",
                "call_rate_limit",
                "app_rate_limit",
                "permission_request_rate_limit",
                "account_rate_limit",
                "throughput_limit",
                "pair_rate_limit",
                "api_unknown",
                "api_unavailable",
                "something_went_wrong",
                "service_unavailable",
                "http_timeout",
                "http_too_many_requests",
                "http_server_error",
            ]
        );
    }

    #[test]
    fn what_no_page_of_metas_names_is_marked() {
        let seen: Vec<_> = ROWS.iter().filter(|row| row.known == Seen).map(|row| row.meaning.label).collect();
        assert_eq!(seen, ["sdp_invalid", "fingerprint_not_sha256"]);
        assert!(STATUSES.iter().all(|row| row.known == Inferred));
    }
}
