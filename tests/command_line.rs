//! The command line as a user meets it: settings from the environment, errors that name them, help that teaches.

use std::process::{Command, Output};

fn bridge(words: &[&str], variables: &[(&str, &str)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_voice-media-bridge"));
    command.args(words).env_clear().env("BRIDGE_LISTEN", "127.0.0.1:0").envs(variables.iter().copied());
    command.output().expect("the program starts")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn yes_and_no_may_be_said_in_any_usual_way_and_empty_means_not_set() {
    for value in ["1", "true", "yes", "on", "0", "false", "no", "off", ""] {
        for name in ["BRIDGE_NO_PAGE", "BRIDGE_ALLOW_PRIVATE", "BRIDGE_ALLOW_PLAINTEXT_MODEL"] {
            let output = bridge(&["check-config"], &[(name, value), ("BRIDGE_MEDIA_IP", "127.0.0.1")]);
            assert!(output.status.success(), "{name}={value}: {}", text(&output.stderr));
        }
    }
    let output = bridge(&["check-config"], &[("PORT", ""), ("OPENAI_API_KEY", ""), ("BRIDGE_MAX_CALLS", "")]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert!(text(&output.stdout).contains("BRIDGE_AGENT               builtin"), "{}", text(&output.stdout));
    let output = bridge(&["check-config"], &[("BRIDGE_NO_PAGE", "1")]);
    assert!(text(&output.stdout).contains("BRIDGE_NO_PAGE             true"), "{}", text(&output.stdout));
}

#[test]
fn check_config_shows_no_secret_and_names_what_is_wrong() {
    let secrets = [("OPENAI_API_KEY", "sk-canary-key"), ("BRIDGE_API_TOKEN", "canary-token-0123456789")];
    let output = bridge(&["check-config"], &secrets);
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{err}");
    assert!(out.contains("OPENAI_API_KEY             (hidden)") && !out.contains("canary"), "{out}");
    assert!(out.ends_with("ok\n"), "{out}");

    for (variables, named) in [
        (&[("BRIDGE_LISTEN", "0.0.0.0:0")][..], "BRIDGE_API_TOKEN"),
        (&[("OPENAI_REALTIME_URL", "http://model")], "OPENAI_REALTIME_URL"),
        (&[("BRIDGE_LOG", "loud=loudest")], "BRIDGE_LOG"),
        (&[("BRIDGE_OPUS_COMPLEXITY", "99")], "BRIDGE_OPUS_COMPLEXITY"),
    ] {
        let output = bridge(&["check-config"], variables);
        let err = text(&output.stderr);
        assert!(!output.status.success() && err.starts_with("error: ") && err.contains(named), "{variables:?}: {err}");
        assert_eq!(err.trim_end().lines().count(), 1, "one line: {err}");
    }
}

#[test]
fn help_names_every_variable_and_hides_what_is_set() {
    let output = bridge(&["--help"], &[("OPENAI_API_KEY", "sk-canary-key")]);
    let help = text(&output.stdout);
    for name in
        ["BRIDGE_LISTEN", "PORT", "OPENAI_API_KEY", "BRIDGE_MEDIA_IP", "BRIDGE_MEDIA_PORTS", "check-config", "agent"]
    {
        assert!(help.contains(name), "{name} is missing in\n{help}");
    }
    assert!(!help.contains("canary"), "{help}");
}
