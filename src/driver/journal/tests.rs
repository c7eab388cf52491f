//! The journal over crashes, torn writes, other processes and folders that do not take it.

use std::os::unix::fs::PermissionsExt;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use super::*;
use crate::driver::mail::{Mailboxes, mailboxes};
use crate::io::Node;

const PATIENCE: Duration = Duration::from_secs(20);

/// A folder of its own, gone when dropped.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("voice-media-bridge-journal-{}-{number}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        Self(path)
    }

    fn open(&self, instance: &str) -> (Journal, Vec<(u64, String)>) {
        Journal::open(&self.0, instance).unwrap()
    }

    fn file(&self, instance: &str) -> PathBuf {
        self.0.join(format!("whatsapp-{instance}.journal"))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::set_permissions(&self.0, fs::Permissions::from_mode(0o700));
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn put(key: u64, text: &str) -> Note {
    Note::Put(key, text.to_owned())
}

fn notes(expected: &[(u64, &str)]) -> Vec<(u64, String)> {
    expected.iter().map(|(key, text)| (*key, (*text).to_owned())).collect()
}

#[test]
fn what_was_put_and_not_removed_is_there_again_and_nobody_else_can_read_it() {
    let folder = Folder::new();
    let (mut journal, left) = folder.open("calls");
    assert_eq!(left, []);
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&folder.0), mode(&folder.file("calls"))), (0o700, 0o600));
    journal.apply(&[put(1, "one"), put(2, "two"), Note::Remove(1), Note::Remove(77)]).unwrap();
    drop(journal);
    let (mut journal, left) = folder.open("calls");
    assert_eq!(left, notes(&[(2, "two")]));
    assert_eq!(mode(&folder.file("calls")), 0o600, "written anew");
    journal.apply(&[put(3, "three")]).unwrap();
    drop(journal);
    assert_eq!(folder.open("calls").1, notes(&[(2, "two"), (3, "three")]));
}

#[test]
fn a_torn_line_and_garbage_cost_themselves_alone() {
    let folder = Folder::new();
    let (mut journal, _) = folder.open("calls");
    journal.apply(&[put(1, "one"), put(2, "two")]).unwrap();
    drop(journal);
    let whole = fs::read(folder.file("calls")).unwrap();
    for kept in whole.len() - 10..whole.len() - 1 {
        let torn = [b"\0\0\0\0garbage\n", &whole[..kept]].concat();
        fs::write(folder.file("calls"), torn).unwrap();
        let (mut journal, left) = folder.open("calls");
        assert_eq!(left, notes(&[(1, "one")]));
        journal.apply(&[put(2, "behind it")]).unwrap();
        drop(journal);
        assert_eq!(folder.open("calls").1, notes(&[(1, "one"), (2, "behind it")]), "{kept} bytes kept");
    }
}

#[test]
fn a_line_that_lacks_its_end_alone_is_whole_and_so_is_the_next() {
    let folder = Folder::new();
    let (mut journal, _) = folder.open("calls");
    journal.apply(&[put(1, "one")]).unwrap();
    drop(journal);
    let whole = fs::read(folder.file("calls")).unwrap();
    fs::write(folder.file("calls"), whole.strip_suffix(b"\n").unwrap()).unwrap();
    let (mut journal, left) = folder.open("calls");
    assert_eq!(left, notes(&[(1, "one")]));
    journal.apply(&[put(2, "behind it")]).unwrap();
    drop(journal);
    assert_eq!(folder.open("calls").1, notes(&[(1, "one"), (2, "behind it")]));
}

#[test]
fn a_file_is_one_processs_also_while_it_is_written_anew() {
    let folder = Folder::new();
    let (mut journal, _) = folder.open("calls");
    for _ in 0..2 {
        let error = Journal::open(&folder.0, "calls").unwrap_err();
        assert!(error.contains("whatsapp-calls.journal is held") && error.contains("BRIDGE_STATE_DIR"), "{error}");
        journal.rewrite().unwrap();
    }
    // Somebody opened the file just before it was replaced: the lock on the old one is not the journal's.
    let open = || options().open(folder.file("calls")).unwrap();
    let old = open();
    journal.rewrite().unwrap();
    assert!(matches!(claim(&folder.file("calls"), old).unwrap(), Locked::Gone));
    assert!(matches!(claim(&folder.file("calls"), open()).unwrap(), Locked::Held));
    drop(journal);
    folder.open("calls");
}

#[test]
fn a_file_that_has_grown_is_written_anew_with_what_is_alive() {
    let folder = Folder::new();
    let (mut journal, _) = folder.open("calls");
    let text = "x".repeat(1000);
    journal.apply(&[put(0, "stays")]).unwrap();
    let mut longest = 0;
    for key in 1..2_000 {
        journal.apply(&[put(key, &text), Note::Remove(key)]).unwrap();
        let length = fs::metadata(folder.file("calls")).unwrap().len();
        assert_eq!(length, journal.file_bytes);
        longest = longest.max(length);
    }
    assert!((REWRITE_BYTES_MIN - 2_000..REWRITE_BYTES_MIN + 2_000).contains(&longest), "{longest}");
    // What is alive is never written anew for its own length.
    let many: Vec<_> = (5_000..5_400).map(|key| put(key, &text)).collect();
    journal.apply(&many).unwrap();
    assert!(journal.file_bytes > 400_000);
    drop(journal);
    assert_eq!(folder.open("calls").1.len(), 401);
}

#[test]
fn a_call_is_gone_from_the_file_some_eighty_calls_later_also_where_one_is_always_up() {
    let folder = Folder::new();
    let (mut journal, _) = folder.open("calls");
    // As long as what is noted of a call.
    let line = |key: u64| format!("{key:->130}");
    journal.apply(&[put(0, &line(0)), put(1, &line(1)), Note::Remove(1)]).unwrap();
    let is_there = || fs::read_to_string(folder.file("calls")).unwrap().contains(&line(1));
    let calls = (2..1_000).take_while(|key| {
        journal.apply(&[put(*key, &line(*key))]).unwrap();
        journal.apply(&[Note::Remove(*key)]).unwrap();
        is_there()
    });
    let calls = calls.count();
    assert!((70..100).contains(&calls), "{calls}");
}

#[test]
fn what_other_instances_left_is_taken_over_when_they_are_gone_and_only_then() {
    let folder = Folder::new();
    let (mut dead, _) = folder.open("a");
    dead.apply(&[put(1, "a's first"), put(2, "a's second"), Note::Remove(1)]).unwrap();
    let (mut alive, _) = folder.open("calls");
    alive.apply(&[put(9, "of one that lives")]).unwrap();
    fs::write(folder.0.join("other.journal"), "not ours").unwrap();
    drop(dead);
    let (mut own, _) = folder.open("b");
    own.apply(&[put(4, "own")]).unwrap();
    drop(own);
    let (mut own, left) = folder.open("b");
    assert_eq!(left.len(), 2, "{left:?}");
    assert!(left.contains(&(4, "own".into())) && left.iter().any(|(_, text)| text == "a's second"), "{left:?}");
    assert_eq!(fs::metadata(folder.file("a")).unwrap().len(), 0, "emptied");
    assert_eq!(fs::read_to_string(folder.0.join("other.journal")).unwrap(), "not ours");
    let adopted = left.iter().find(|(_, text)| text == "a's second").unwrap().0;
    own.apply(&[Note::Remove(adopted)]).unwrap();
    drop((own, alive));
    // Nothing is ended twice, and nothing is lost.
    assert_eq!(
        folder.open("a").1.iter().map(|(_, text)| text.as_str()).collect::<Vec<_>>(),
        ["own", "of one that lives"]
    );
}

#[test]
fn a_folder_that_cannot_be_used_is_named_with_its_setting() {
    let folder = Folder::new();
    fs::write(&folder.0, "a file").unwrap();
    let error = Journal::open(&folder.0, "calls").unwrap_err();
    assert!(error.starts_with("BRIDGE_STATE_DIR") && error.contains("cannot be made"), "{error}");
    fs::remove_file(&folder.0).unwrap();
    fs::create_dir(&folder.0).unwrap();
    fs::create_dir(folder.file("calls")).unwrap();
    let error = Journal::open(&folder.0, "calls").unwrap_err();
    assert!(error.starts_with("BRIDGE_STATE_DIR") && error.contains("whatsapp-calls.journal"), "{error}");
    // No link leads the journal elsewhere.
    fs::remove_dir(folder.file("calls")).unwrap();
    std::os::unix::fs::symlink("/dev/null", folder.file("calls")).unwrap();
    Journal::open(&folder.0, "calls").unwrap_err();
}

#[test]
fn a_write_that_fails_is_made_up_for_with_the_next() {
    let folder = Folder::new();
    let (mut journal, _) = folder.open("calls");
    journal.apply(&[put(1, "one")]).unwrap();
    // What is open for reading alone takes nothing, as a full disk.
    journal.file = Flock::lock(File::open("/dev/null").unwrap(), FlockArg::LockShared).unwrap();
    journal.apply(&[put(2, "lost at first")]).unwrap_err();
    journal.apply(&[put(3, "three"), Note::Remove(1)]).unwrap();
    drop(journal);
    assert_eq!(folder.open("calls").1, notes(&[(2, "lost at first"), (3, "three")]));
}

#[test]
fn nothing_stays_in_the_file_when_nothing_is_alive() {
    let folder = Folder::new();
    let (mut journal, _) = folder.open("calls");
    let bytes = || fs::metadata(folder.file("calls")).unwrap().len();
    for round in 0..3 {
        journal.apply(&[put(round, "one"), put(10 + round, "two")]).unwrap();
        journal.apply(&[Note::Remove(round)]).unwrap();
        assert!(bytes() > 0 && bytes() == journal.file_bytes, "one is alive");
        journal.apply(&[Note::Remove(10 + round)]).unwrap();
        assert_eq!((bytes(), journal.file_bytes), (0, 0), "round {round}");
        // What came and went between two looks was never written.
        journal.apply(&[put(20 + round, "three"), Note::Remove(20 + round)]).unwrap();
        assert_eq!((bytes(), journal.file_bytes), (0, 0), "round {round}");
    }
    journal.apply(&[put(99, "the next")]).unwrap();
    drop(journal);
    assert_eq!(folder.open("calls").1, notes(&[(99, "the next")]));
}

#[test]
fn a_file_that_cannot_be_emptied_keeps_what_it_has_and_is_emptied_with_the_next_write() {
    let folder = Folder::new();
    let (mut journal, _) = folder.open("calls");
    // What is open for reading alone can be synced, and not be cut.
    fs::write(folder.0.join("other"), "").unwrap();
    let read_only = || Flock::lock(File::open(folder.0.join("other")).unwrap(), FlockArg::LockShared).unwrap();
    journal.apply(&[put(1, "one")]).unwrap();
    let whole = fs::read(folder.file("calls")).unwrap();
    journal.file = read_only();
    journal.apply(&[Note::Remove(1)]).unwrap_err();
    assert_eq!(fs::read(folder.file("calls")).unwrap(), whole);
    journal.apply(&[put(2, "two")]).unwrap();
    drop(journal);
    let (mut journal, left) = folder.open("calls");
    assert_eq!(left, notes(&[(2, "two")]));
    // The last write of all brings no notes.
    journal.file = read_only();
    journal.apply(&[Note::Remove(2)]).unwrap_err();
    journal.apply(&[]).unwrap();
    assert_eq!(fs::metadata(folder.file("calls")).unwrap().len(), 0);
}

#[test]
fn what_is_no_line_is_left_out() {
    let folder = Folder::new();
    let (mut journal, _) = folder.open("calls");
    let long = "x".repeat(lines::TEXT_BYTES_MAX + 1);
    journal.apply(&[put(1, "two\nlines"), put(2, &long), put(3, "three")]).unwrap();
    drop(journal);
    assert_eq!(folder.open("calls").1, notes(&[(3, "three")]));
}

#[test]
fn all_that_control_noted_is_written_when_it_is_gone() {
    let folder = Folder::new();
    let Mailboxes { mut control, journal, .. } = mailboxes(0).unwrap();
    let counters = Arc::<Counters>::default();
    let crew = spawn(journal, folder.open("calls").0, Arc::clone(&counters)).unwrap();
    for key in 0..500 {
        control.routes.send(Node::Journal, Message::Note(put(key, "call")));
        if key != 250 {
            control.routes.send(Node::Journal, Message::Note(Note::Remove(key)));
        }
        while control.routes.retry() {
            std::thread::yield_now();
        }
    }
    drop(control);
    assert!(crew.finish(PATIENCE));
    assert_eq!(folder.open("calls").1, notes(&[(250, "call")]));
    assert!(counters.value("journal_writes").is_some_and(|writes| (1..=999).contains(&writes)));
    assert_eq!(counters.value("journal_failures"), Some(0));
}
