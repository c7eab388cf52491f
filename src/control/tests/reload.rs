//! TLS and SIGHUP on the plain machine; what passes inside TLS is for the tests of the wire.

use super::*;
use crate::config::Secret;
use crate::messages::Reloaded;
use crate::tls::testing::Identity;

const TOKEN: &str = "canary-token-0123456789";
const NEW: &str = "canary-token-that-is-newer";

fn reload(world: &mut World, tls: Option<Result<Acceptor, String>>, api_tokens: Option<Result<Vec<Secret>, String>>) {
    world.input(Input::Message(Message::Reload(Box::new(Reloaded { tls, api_tokens, whatsapp: None }))));
}

/// What `/metrics` says under this name, for one with this token.
fn metric(world: &mut World, token: &str, name: &str) -> Option<String> {
    let text = world.ask("GET", &format!("/k/{token}/metrics"), "").text;
    text.lines().find_map(|line| line.strip_prefix(&format!("voice_media_bridge_{name} ")).map(str::to_owned))
}

#[test]
fn plain_http_on_a_port_of_tls_is_refused_in_words_and_counted() {
    let mut world = World::secure(&[], Identity::until(2100).acceptor());
    let stream = world.begin("GET", "/health", "", "");
    let answer = world.answer(stream);
    assert_eq!((answer.status, answer.code()), (400, "tls_required"));
    assert!(answer.error().contains("use https://") && answer.header("Connection") == Some("close"), "{answer:?}");
    assert!(world.clients[&stream].shut);
    world.input(Input::Ended { stream });
    assert!(world.clients[&stream].closed);
    assert_eq!((world.control.connections.count(), world.control.timers.len()), (0, 0), "nothing is left");
    assert_eq!((world.control.stats.handshakes.plain, world.control.stats.handshakes.failed), (1, 0));
}

#[test]
fn what_is_no_tls_either_is_counted_as_a_failure_and_leaves_nothing() {
    let mut world = World::secure(&[], Identity::until(2100).acceptor());
    let stream = world.client();
    world.send(stream, [0u8; 64]);
    assert!(world.clients[&stream].shut);
    world.wait(Duration::from_secs(2));
    assert!(world.clients[&stream].closed);
    assert_eq!(world.control.stats.handshakes.failed, 1);
    assert_eq!((world.control.connections.count(), world.control.timers.len()), (0, 0));
}

#[test]
fn a_reload_during_the_start_does_not_say_that_it_serves() {
    let mut world = World::unstarted(&[], None, None);
    reload(&mut world, None, None);
    assert!(!world.notices.iter().any(|notice| matches!(notice, Notice::Ready | Notice::Reloading)));
    assert_eq!(world.control.stats.reloads.nothing, 1, "it was read");
}

#[test]
fn new_tokens_count_from_the_next_request_on_and_bad_ones_change_nothing() {
    let mut world = World::with(&["--api-token", TOKEN]);
    let status = |world: &mut World, token: &str| world.ask("GET", &format!("/k/{token}/api/sessions"), "").status;
    world.ask("POST", &format!("/k/{TOKEN}/api/sessions"), &session(ID, OFFER, &json!({})));
    reload(&mut world, None, Some(Ok(vec![Secret::new(NEW)])));
    assert_eq!([TOKEN, NEW].map(|token| status(&mut world, token)), [401, 200]);
    reload(&mut world, None, Some(Err("holds no token".into())));
    assert_eq!([TOKEN, NEW].map(|token| status(&mut world, token)), [401, 200]);
    assert_eq!(world.ask("GET", &format!("/k/{NEW}/api/sessions"), "").json["count"], 1, "the call is not touched");
    for (outcome, count) in [("ok", "1"), ("failed", "1"), ("nothing", "0")] {
        let name = format!("reloads_total{{outcome=\"{outcome}\"}}");
        assert_eq!(metric(&mut world, NEW, &name).as_deref(), Some(count), "{outcome}");
    }
}

#[test]
fn the_service_manager_hears_of_each_reload_whatever_came_of_it() {
    let mut world = World::new();
    for tls in [None, Some(Err("is damaged".into())), Some(Ok(Identity::until(2100).acceptor()))] {
        world.notices.clear();
        reload(&mut world, tls, None);
        world.notices.retain(|notice| !matches!(notice, Notice::Status(_)));
        assert_eq!(world.notices, [Notice::Reloading, Notice::Ready]);
    }
}

#[test]
fn the_certificates_end_is_that_of_the_one_in_use() {
    let mut world = World::with(&["--api-token", TOKEN]);
    assert_eq!(metric(&mut world, TOKEN, "tls_certificate_not_after_seconds"), None);
    let mut world = World::secure(&[], Identity::until(2100).acceptor());
    assert_eq!(world.control.stats.tls_not_after_sec, Some(4_133_894_400));
    reload(&mut world, Some(Err("is damaged".into())), None);
    assert_eq!(world.control.stats.tls_not_after_sec, Some(4_133_894_400));
    reload(&mut world, Some(Ok(Identity::until(2101).acceptor())), None);
    assert_eq!(world.control.stats.tls_not_after_sec, Some(4_165_430_400));
}
