//! What is installed beside the program: the manual page is current, the units agree, the example names what exists, and the
//! upgrade command does what it says, with a systemd that is played.
//!
//! What only a real systemd can show is in `tests/vm`; `systemd/check` has what its own tools say of the units.

#![allow(clippy::unwrap_used, reason = "tests, helpers included, end by panicking")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const PROGRAM: &str = env!("CARGO_BIN_EXE_voice-media-bridge");

fn file(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("systemd").join(name);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn manual() -> String {
    let output = Command::new(PROGRAM).arg("man").output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn the_manual_page_is_current() {
    assert!(
        manual() == file("voice-media-bridge.1"),
        "an option or its help has changed, and the manual page has not. Run:\n    \
         cargo run --release --locked -- man > systemd/voice-media-bridge.1"
    );
}

#[test]
fn the_manual_page_has_every_command_and_variable() {
    let page = manual();
    for word in ["SS \"voice\\-media\\-bridge load\"", "BRIDGE_MEDIA_PORTS", "SH SIGNALS", "max\\-echo\\-p50\\-ms"] {
        assert!(page.contains(word), "no {word}");
    }
    assert!(!page.contains("bridge help\"") && !page.contains("bridge man\""));
    // Whoever reads what --deep is for learns whom it asks.
    let deep = page.split("Whether the key is taken").nth(1).and_then(|rest| rest.split("\\-\\-deep").next());
    assert!(
        deep.is_some_and(|words| words.contains("asks Meta for each of WhatsApp's numbers with its token")),
        "{deep:?}"
    );
}

/// The lines that set something.
fn settings(unit: &str) -> BTreeSet<String> {
    file(unit).lines().filter(|line| !line.starts_with('#') && !line.is_empty()).map(str::to_owned).collect()
}

#[test]
fn the_unit_and_the_template_differ_only_in_what_makes_a_pair() {
    let (one, pair) = (settings("voice-media-bridge.service"), settings("voice-media-bridge@.service"));
    let only = |a: &BTreeSet<String>, b: &BTreeSet<String>| a.difference(b).cloned().collect::<Vec<_>>();
    assert_eq!(only(&one, &pair), ["Description=Voice media bridge"]);
    assert_eq!(
        only(&pair, &one),
        [
            "DefaultInstance=a",
            "Description=Voice media bridge, instance %i",
            "Environment=BRIDGE_INSTANCE=%i",
            "Sockets=voice-media-bridge.socket",
        ]
    );
}

#[test]
fn the_example_names_variables_that_exist() {
    let page = manual();
    let example = file("voice-media-bridge.env.example");
    let names = example.lines().filter_map(|line| line.strip_prefix('#')?.split_once('=').map(|(name, _)| name));
    let names: Vec<_> = names.filter(|name| !name.contains(' ')).collect();
    assert!(names.len() > 5, "{names:?}");
    for name in names {
        assert!(page.contains(&format!("\\fB{name}\\fR")), "no option has the variable {name}");
    }
}

#[test]
fn every_credential_is_named_where_it_is_looked_for() {
    let page = manual().replace("\\-", "-");
    for name in [
        "api-token",
        "openai-api-key",
        "events-token",
        "whatsapp-app-secret",
        "whatsapp-verify-token",
        "whatsapp-access-token",
    ] {
        let places = ["voice-media-bridge.service", "voice-media-bridge@.service", "voice-media-bridge.env.example"];
        for place in places {
            assert!(file(place).contains(name), "{place} does not name the credential {name}");
        }
        assert!(page.contains(name), "the manual page does not name {name}");
    }
}

#[test]
fn what_outlives_a_crash_is_in_a_folder_that_a_purge_removes() {
    for unit in ["voice-media-bridge.service", "voice-media-bridge@.service"] {
        let settings = settings(unit);
        for line in [
            "StateDirectory=voice-media-bridge",
            "StateDirectoryMode=0700",
            "Environment=BRIDGE_STATE_DIR=%S/voice-media-bridge",
        ] {
            assert!(settings.contains(line), "{unit} does not say {line}");
        }
    }
    let purge = file("debian/postrm");
    let purge = purge.split("purge)").nth(1).unwrap();
    assert!(purge.contains(" /var/lib/voice-media-bridge"), "{purge}");
}

/// A folder with a `systemctl` that tells what each instance is from files, and does what it is told to them.
struct Played(PathBuf);

const SYSTEMCTL: &str = r#"#!/usr/bin/env bash
# An instance is a file with its ActiveState, and one with what it says, a line for each look.
cd "$(dirname "$0")"
echo "$*" >>calls
instance=$(sed -nE 's/.*voice-media-bridge@([ab]).*/\1/p' <<<"$*")
case $* in
    *LoadState*) echo loaded ;;
    *is-active*voice-media-bridge.service) [[ -e alone ]] ;;
    *is-active*voice-media-bridge.socket) [[ ! -e no-socket ]] ;;
    *ActiveState*) cat "$instance.state" ;;
    *StatusText*)
        [[ -s $instance.says ]] || echo inactive >"$instance.state"
        head -n 1 "$instance.says"
        sed -i 1d "$instance.says"
        ;;
    *SubState*) echo dead ;;
    *NeedDaemonReload*) echo no ;;
    *Result*) cat "$instance.result" ;;
    start*)
        [[ ! -e broken ]] || exit 1
        echo active >"$instance.state"
        for old in a b; do [[ $old == "$instance" || $(<$old.state) != active ]] || echo deactivating >$old.state; done
        ;;
esac
"#;

impl Played {
    fn new(name: &str, a: &str, b: &str) -> Self {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("upgrade-{name}"));
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).unwrap();
        let played = Self(folder);
        played.put("systemctl", SYSTEMCTL);
        // The test need not be root; the script asks bash, which asks nobody.
        let script = file("voice-media-bridge-upgrade").replace("((EUID == 0))", "true");
        played.put("upgrade", &script);
        for (instance, state) in [("a", a), ("b", b)] {
            played.put(&format!("{instance}.state"), state);
            played.put(&format!("{instance}.says"), "2 calls\ndraining: 2 calls remain\ndraining: 1 call remains\n");
            played.put(&format!("{instance}.result"), "success");
        }
        let made = Command::new("chmod").arg("+x").arg(played.0.join("systemctl")).status();
        assert!(made.unwrap().success());
        played
    }

    fn put(&self, name: &str, text: &str) {
        fs::write(self.0.join(name), text).unwrap();
    }

    fn upgrade(&self, arguments: &[&str]) -> (Option<i32>, String) {
        let path = format!("{}:{}", self.0.display(), std::env::var("PATH").unwrap());
        let mut command = Command::new("bash");
        command.arg(self.0.join("upgrade")).args(arguments).env("PATH", path).env("UPGRADE_LOOK_SEC", "0");
        let Output { status, stdout, stderr } = command.output().unwrap();
        (status.code(), String::from_utf8(stdout).unwrap() + &String::from_utf8(stderr).unwrap())
    }

    /// What systemctl was told, apart from questions.
    fn told(&self) -> Vec<String> {
        let calls = fs::read_to_string(self.0.join("calls")).unwrap();
        let calls = calls.lines().filter(|call| !call.starts_with("show") && !call.contains("is-active"));
        calls.map(|call| call.replace("voice-media-bridge", "bridge").replace(".service", "")).collect()
    }
}

#[test]
fn an_upgrade_starts_the_other_instance_and_follows_the_old_one_to_its_end() {
    let played = Played::new("swap", "active", "inactive");
    let (code, output) = played.upgrade(&[]);
    assert_eq!(code, Some(0), "{output}");
    assert_eq!(
        output,
        "voice-media-bridge@a.service: 2 calls\n\
         starting voice-media-bridge@b.service\n\
         voice-media-bridge@b.service is ready and takes all new calls\n\
         voice-media-bridge@a.service: draining: 2 calls remain\n\
         voice-media-bridge@a.service: draining: 1 call remains\n\
         voice-media-bridge@a.service has ended\n"
    );
    let told = [
        "reset-failed bridge@b",
        "start bridge@b",
        "--quiet enable bridge.socket bridge@b",
        "--quiet disable bridge@a",
    ];
    assert_eq!(played.told(), told);
    let back = Played::new("back", "inactive", "active");
    assert_eq!(back.upgrade(&["--no-wait"]).0, Some(0));
    assert!(back.told().contains(&"start bridge@a".to_owned()), "{:?}", back.told());
    assert_eq!(fs::read_to_string(back.0.join("b.state")).unwrap(), "deactivating\n", "it waited");
}

#[test]
fn where_none_runs_a_is_started() {
    let played = Played::new("first", "inactive", "failed");
    let (code, output) = played.upgrade(&[]);
    assert_eq!(code, Some(0), "{output}");
    assert_eq!(played.told(), ["reset-failed bridge@a", "start bridge@a", "--quiet enable bridge.socket bridge@a"]);
}

#[test]
fn a_new_instance_that_does_not_come_up_is_stopped_and_the_old_one_left_alone() {
    let played = Played::new("broken", "active", "inactive");
    played.put("broken", "");
    let (code, output) = played.upgrade(&[]);
    assert_eq!(code, Some(3), "{output}");
    assert!(output.contains("voice-media-bridge@a.service goes on as before"), "{output}");
    assert!(output.contains("journalctl -u voice-media-bridge@b.service"), "{output}");
    assert_eq!(played.told(), ["reset-failed bridge@b", "start bridge@b", "stop bridge@b"]);
    assert_eq!(fs::read_to_string(played.0.join("a.state")).unwrap(), "active");
}

#[test]
fn a_dry_run_says_what_would_be_done_and_does_nothing() {
    let played = Played::new("dry", "active", "inactive");
    let (code, output) = played.upgrade(&["--dry-run"]);
    assert_eq!(code, Some(0), "{output}");
    assert!(output.contains("would start voice-media-bridge@b.service"), "{output}");
    assert_eq!(played.told(), Vec::<String>::new());
}

#[test]
fn nothing_is_begun_while_an_instance_drains_or_both_run_or_the_single_one() {
    let draining = Played::new("draining", "deactivating", "active");
    let (code, output) = draining.upgrade(&[]);
    assert!(code == Some(4) && output.contains("@a.service has not ended yet: 2 calls"), "{output}");
    let both = Played::new("both", "active", "active");
    let (code, output) = both.upgrade(&[]);
    assert!(code == Some(4) && output.contains("both instances run"), "{output}");
    let single = Played::new("single", "inactive", "inactive");
    single.put("alone", "");
    let (code, output) = single.upgrade(&[]);
    assert!(code == Some(1) && output.contains("systemctl restart voice-media-bridge"), "{output}");
    let unheard = Played::new("unheard", "active", "inactive");
    unheard.put("no-socket", "");
    let (code, output) = unheard.upgrade(&[]);
    assert!(code == Some(1) && output.contains("voice-media-bridge.socket is down"), "{output}");
    let (code, output) = single.upgrade(&["--force"]);
    assert!(code == Some(2) && output.contains("--help"), "{output}");
    for played in [&draining, &both, &single, &unheard] {
        assert_eq!(played.told(), Vec::<String>::new());
    }
}

#[test]
fn an_old_instance_that_ends_badly_is_told_from_one_that_ends_well() {
    let played = Played::new("killed", "active", "inactive");
    played.put("a.result", "timeout");
    let (code, output) = played.upgrade(&["--wait"]);
    assert!(code == Some(5) && output.contains("ended with 'timeout'"), "{output}");
}
