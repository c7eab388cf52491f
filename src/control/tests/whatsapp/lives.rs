//! A call from its webhook to its end, when all goes well.

use super::*;
use crate::whatsapp::journal::Alive;

#[test]
fn a_call_is_pre_accepted_at_once_accepted_when_media_is_up_and_starts_with_the_accepts_200() {
    let mut world = World::whatsapp();
    let answer = world.deliver(&connect(ID));
    assert_eq!((answer.status, answer.json["success"].as_bool()), (200, Some(true)));
    let open = &world.opened[0];
    assert_eq!(open.start_media, crate::messages::StartMedia::Manual);
    assert_eq!(open.session.voice.as_deref(), Some("marin"));
    assert_eq!(world.asked_of_meta(), ["pre_accept"]);

    let first = world.graph_ok();
    let sent = body_of(&first);
    assert_eq!((first.path.as_str(), first.token.expose()), (&*format!("/{NUMBER}/calls"), "token of front desk"));
    assert_eq!((sent["messaging_product"].as_str(), sent["call_id"].as_str()), (Some("whatsapp"), Some(ID)));
    assert_eq!(sent["session"], json!({ "sdp_type": "answer", "sdp": ANSWER }));
    assert_eq!(world.asked_of_meta(), [""; 0], "media is not up");

    world.connect_call(1);
    assert_eq!(world.asked_of_meta(), ["accept"]);
    assert!(!world.told.iter().any(|told| told.contains("Activate")), "audio before accept is cut off at the caller's");
    let second = world.graph_ok();
    assert_eq!(body_of(&second)["session"], sent["session"], "the same bytes");
    assert_eq!(world.told.iter().filter(|told| told.contains("Activate")).count(), 1);

    let record = world.record(ID);
    assert_eq!((record["state"].as_str(), record["number"].as_str()), (Some("accepted"), Some("front desk")));
    assert!(record["acceptedUs"].as_u64().is_some() && record["preAcceptSentUs"].as_u64().is_some(), "{record}");
    assert_eq!(world.metric("whatsapp_calls_alive"), Some(1));
    assert_eq!(world.metric("whatsapp_graph_requests_total{action=\"accept\",outcome=\"ok\"}"), Some(1));
}

#[test]
fn a_call_that_the_user_ends_is_ended_here_with_metas_words_and_meta_is_told_nothing() {
    let mut world = World::whatsapp();
    world.accepted(ID);
    assert_eq!(world.journal.len(), 1);
    assert_eq!(world.deliver(&terminate(ID)).status, 200);
    assert_eq!((world.asked_of_meta().len(), world.journal.len()), (0, 0));
    let shown = world.ask("GET", &path(ID), "").json;
    assert_eq!((shown["state"].as_str(), shown["closeReason"].as_str()), (Some("ended"), Some("terminated")));
    assert_eq!(shown["whatsapp"]["terminate"]["status"], "COMPLETED");
    assert_eq!(shown["whatsapp"]["terminate"]["durationSec"], 20);
    assert_eq!(world.metric("whatsapp_calls_alive"), Some(0));
}

#[test]
fn a_call_that_failed_at_meta_shows_the_error_and_what_it_means() {
    let mut world = World::whatsapp();
    world.accepted(ID);
    let mut event = terminate_event(ID);
    event["status"] = "FAILED".into();
    event["errors"] =
        json!([{ "code": 138_021, "title": "t", "message": "no media", "error_data": { "details": "d" } }]);
    world.deliver(&webhook(&[calls(NUMBER, &json!([event]))]));
    let shown = world.ask("GET", &path(ID), "").json;
    assert_eq!((shown["closeReason"].as_str(), shown["closeBlame"].as_str()), (Some("meta_failed"), Some("peer")));
    let error = &shown["whatsapp"]["terminate"]["errors"][0];
    assert_eq!(error["code"], 138_021);
    assert!(error["advice"].as_str().is_some_and(|advice| advice.len() > 20), "{error}");
}

#[test]
fn a_call_that_we_end_is_terminated_at_meta_and_forgotten_by_the_journal_only_then() {
    let mut world = World::whatsapp();
    world.accepted(ID);
    assert_eq!(world.ask("DELETE", &path(ID), "").status, 200);
    assert_eq!((world.asked_of_meta(), world.journal.len()), (vec!["terminate".to_owned()], 1));
    let asked = world.graph_ok();
    assert!(body_of(&asked).get("session").is_none());
    assert_eq!(world.journal.len(), 0);
    assert_eq!(world.deliver(&terminate(ID)).status, 200, "Meta's own word of it comes after");
    assert_eq!((world.asked_of_meta().len(), world.metric("whatsapp_calls_alive")), (0, Some(0)));
    assert_eq!(world.record(ID)["terminate"]["status"], "COMPLETED");
}

#[test]
fn a_drain_ends_calls_at_meta_before_the_process_goes() {
    let mut world = World::whatsapp();
    world.accepted(ID);
    world.input(Input::Stop);
    world.input(Input::Stop);
    assert_eq!(world.asked_of_meta(), ["terminate"]);
    assert!(!world.exited, "Meta has not heard of the end");
    world.graph_ok();
    assert!(world.exited);
    assert_eq!(world.journal.len(), 0);
}

#[test]
fn a_process_that_cannot_tell_meta_in_time_leaves_it_to_the_journal() {
    let mut world = World::whatsapp();
    world.accepted(ID);
    world.input(Input::Stop);
    world.input(Input::Stop);
    world.wait(Duration::from_secs(6));
    assert!(world.exited);
    assert_eq!(world.journal.len(), 1);
}

#[test]
fn calls_that_an_earlier_process_left_are_ended_at_meta_and_their_webhooks_open_nothing() {
    let mut world = World::whatsapp();
    world.accepted(ID);
    let left = world.journal.clone();
    let mut next = World::whatsapp_with(&[], None, left);
    assert_eq!(next.asked_of_meta(), ["terminate"]);
    assert_eq!(next.deliver(&connect(ID)).status, 200);
    assert_eq!(next.opened.len(), 0);
    next.graph_ok();
    assert_eq!(next.journal.len(), 0);
    assert_eq!(next.metric("whatsapp_orphans_total"), Some(1));
    // Keys of the journal are not used twice.
    next.deliver(&connect("wacid.another"));
    assert_eq!(next.journal.keys().copied().collect::<Vec<_>>(), [2]);
}

#[test]
fn what_the_journal_holds_in_no_known_form_or_from_long_ago_is_forgotten() {
    let call = crate::call_id::CallId::new("wacid.old").unwrap();
    let old = Alive { call, phone_number_id: NUMBER.to_owned(), since_sec: UNIX_SEC - 24 * 3600 - 1 };
    let journal = BTreeMap::from([(7, "no line of ours".to_owned()), (8, old.encode())]);
    let world = World::whatsapp_with(&[], None, journal);
    assert_eq!((world.journal.len(), world.graph.len()), (0, 0));
}

#[test]
fn a_call_left_by_an_earlier_process_is_ended_when_its_number_is_in_the_settings_again() {
    let call = crate::call_id::CallId::new(ID).unwrap();
    let left = Alive { call, phone_number_id: "777".to_owned(), since_sec: UNIX_SEC - 60 };
    let mut world = World::whatsapp_with(&[], None, BTreeMap::from([(7, left.encode())]));
    assert_eq!((world.journal.len(), world.graph.len()), (1, 0));
    let mut other = settings();
    other.numbers[0].phone_number_id = "777".to_owned();
    world.input(Input::Message(reload(Ok(other))));
    assert_eq!(world.asked_of_meta(), ["terminate"]);
    world.graph_ok();
    assert_eq!(world.journal.len(), 0);
}

#[test]
fn a_call_hears_of_its_end_though_its_id_was_given_to_another_meanwhile() {
    let mut world = World::whatsapp();
    world.accepted(ID);
    world.prompt = false;
    assert_eq!(world.ask("DELETE", &path(ID), "").status, 200);
    world.begin("POST", "/api/sessions", "", &session(ID, OFFER, &json!({})));
    world.prompt = true;
    world.run();
    assert_eq!((world.opened.len(), world.asked_of_meta()), (2, vec!["terminate".to_owned()]));
    world.graph_ok();
    assert_eq!(world.journal.len(), 0);
}

#[test]
fn audio_of_a_call_by_webhook_starts_by_metas_word_and_not_by_a_clients() {
    let mut world = World::whatsapp();
    world.deliver(&connect(ID));
    let answer = world.ask("POST", &format!("{}/activate", path(ID)), "{}");
    assert_eq!((answer.status, answer.code()), (409, "by_webhook"));
}

#[test]
fn a_call_that_is_up_hears_of_its_end_though_its_number_has_gone_from_the_settings() {
    let mut world = World::whatsapp();
    world.accepted(ID);
    let mut other = settings();
    other.numbers.remove(0);
    world.input(Input::Message(reload(Ok(other))));
    world.graph.clear();
    world.deliver(&terminate(ID));
    assert_eq!((world.journal.len(), world.graph.len()), (0, 0));
    assert_eq!(world.ask("GET", &path(ID), "").json["closeReason"], "terminated");
}

fn reload(whatsapp: Result<Settings, String>) -> Message {
    Message::Reload(Box::new(Reloaded { tls: None, api_tokens: None, whatsapp: Some(whatsapp) }))
}

#[test]
fn connections_are_kept_warm_by_questions_that_change_nothing() {
    let mut world = World::made(config_with(&[], None), None, None, Some(settings()), BTreeMap::new());
    world.prompt = true;
    world.run();
    let probes: Vec<_> = world.graph.drain(..).collect();
    assert!(probes.len() == 2 && probes.iter().all(|probe| probe.body.is_none()), "{probes:?}");
    world.graph = probes.into();
    world.graph_says(200, &format!("{{\"id\":\"{NUMBER}\"}}"));
    world.graph_says(400, r#"{"error":{"message":"expired","code":190}}"#);
    let probed = |world: &mut World, outcome: &str| {
        world.metric(&format!("whatsapp_graph_requests_total{{action=\"probe\",outcome=\"{outcome}\"}}"))
    };
    assert_eq!((probed(&mut world, "ok"), probed(&mut world, "access_token_invalid")), (Some(1), Some(1)));
    world.wait(Duration::from_secs(26));
    assert_eq!(world.graph.len(), 2, "again before servers close what is idle");
}

#[test]
fn a_reload_gives_the_next_call_another_prompt_and_leaves_those_that_are_up() {
    let mut world = World::whatsapp();
    world.accepted(ID);
    let mut other = settings();
    other.numbers[0].config = r#"{"voice":"cedar"}"#.to_owned();
    other.numbers[0].access_token = Secret::new("rotated");
    world.input(Input::Message(reload(Ok(other.clone()))));
    assert_eq!(world.graph.len(), 2, "the new token is tried at once");
    world.graph.clear();
    world.deliver(&connect("wacid.second"));
    assert_eq!(world.opened[1].session.voice.as_deref(), Some("cedar"));
    assert_eq!(world.graph_ok().token.expose(), "rotated");

    other.numbers[0].config = r#"{"voise":"cedar"}"#.to_owned();
    world.input(Input::Message(reload(Ok(other))));
    world.input(Input::Message(reload(Err("numbers.toml is gone".to_owned()))));
    world.deliver(&connect("wacid.third"));
    assert_eq!(world.opened[2].session.voice.as_deref(), Some("cedar"), "what cannot be used changes nothing");
    assert_eq!(world.metric("reloads_total{outcome=\"failed\"}"), Some(2));
}
