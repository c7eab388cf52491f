//! A small set of lines that outlives a crash: one file that is only appended to, and a thread that writes it.
//!
//! The file belongs to one process at a time, by a lock that the kernel lets go of with the process. What is in it is personal
//! data, so it is its owner's alone, no line of the log shows it, and what was removed does not stay for long: the file is
//! emptied whenever nothing is alive, and written anew when most of it is spent. Nothing waits for a disk but this thread: what is lost
//! with a disk that does not write is the safety, never a call. What the lines mean is not known here.

mod lines;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg, OFlag};

use super::Counters;
use super::counters::count;
use super::crew::Crew;
use super::mail::{Endpoint, Mail};
use crate::messages::{Message, Note};

use lines::{LINES_MAX, Read};

/// Longest file that is read, in bytes; what is behind is lost. A file is written anew long before it is this long.
const FILE_BYTES_MAX: u64 = 32 << 20;

/// A file below this is never written anew, in bytes. What calls have left stays that long where some call is always up: a
/// call is some 200 bytes, so it is one file written anew in some 80 calls, which are 160 writes to the disk by themselves.
const REWRITE_BYTES_MIN: u64 = 16 << 10;

/// Above it, one is written anew when it is longer than what is alive this many times.
const REWRITE_FACTOR: u64 = 4;

/// Most files of others that are looked at.
const OTHERS_MAX: usize = 64;

/// Most notes that one write takes.
const BATCH_MAX: usize = 1024;

/// How often a file that was replaced just then is opened again.
const OPEN_ATTEMPTS: usize = 8;

const PREFIX: &str = "whatsapp-";
const SUFFIX: &str = ".journal";

/// The setting that names the folder, for errors.
const SETTING: &str = "BRIDGE_STATE_DIR (--state-dir)";

/// An open journal.
pub struct Journal {
    path: PathBuf,
    file: Flock<File>,
    alive: BTreeMap<u64, String>,
    /// Bytes of the file, and of what is alive in it.
    file_bytes: u64,
    alive_bytes: u64,
    /// Whether the file may lack what is alive, or end in the middle of a line: then it is to be written anew.
    is_behind: bool,
}

impl fmt::Debug for Journal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Journal({}, {} lines)", self.path.display(), self.alive.len())
    }
}

impl Journal {
    /// Opens the journal of an instance in this folder, which is made if it is not there; one process has it at a time.
    ///
    /// What an earlier process has left comes along, and with it what other instances have left whose processes are gone:
    /// that is in this journal from then on, until it is removed. New keys must be above all of these. The error is a
    /// sentence that names the setting and the file.
    pub fn open(folder: &Path, instance: &str) -> Result<(Self, Vec<(u64, String)>), String> {
        let path = folder.join(format!("{PREFIX}{instance}{SUFFIX}"));
        let failed = |what: &str, error: &dyn fmt::Display| {
            format!("{SETTING} names {}, where {} {what}: {error}", folder.display(), path.display())
        };
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)
            .map_err(|error| format!("{SETTING} names {}, which cannot be made: {error}", folder.display()))?;
        let file = match lock(&path, true) {
            Ok(Locked::Ours(file)) => file,
            Ok(Locked::Held) => {
                return Err(format!(
                    "{} is held by a bridge that runs: give this one a folder of its own, in {SETTING}, or make the two a pair \
                     with BRIDGE_INSTANCE",
                    path.display()
                ));
            }
            Ok(Locked::Gone) => return Err(failed("cannot be opened", &"it is replaced again and again")),
            Err(error) => return Err(failed("cannot be opened", &error)),
        };
        let read = read(&path, &file).map_err(|error| failed("cannot be read", &error))?;
        let is_behind = !read.is_clean();
        let mut journal = Self { path, file, alive: read.alive, file_bytes: 0, alive_bytes: 0, is_behind };
        journal.measure();
        let adopted = journal.adopt(folder);
        if journal.is_behind || !adopted.is_empty() {
            // A disk that does not write costs the safety and no call: it is tried again with the next line.
            match journal.rewrite() {
                Ok(()) => adopted.into_iter().for_each(empty),
                Err(error) => warn_of(&journal.path, &error),
            }
        }
        let notes = journal.alive.iter().map(|(key, text)| (*key, text.clone())).collect();
        Ok((journal, notes))
    }

    /// Takes the lines of instances whose processes are gone; returns their files, which are to be emptied once the lines are
    /// safe here.
    fn adopt(&mut self, folder: &Path) -> Vec<(PathBuf, Flock<File>)> {
        let mut adopted = Vec::new();
        for path in others(folder, &self.path) {
            // Whoever has a lock lives, and sees to its own.
            let file = match lock(&path, false) {
                Ok(Locked::Ours(file)) => file,
                Ok(Locked::Held | Locked::Gone) => continue,
                Err(error) => {
                    tracing::warn!(path = %path.display(), %error, "another instance's journal cannot be opened");
                    continue;
                }
            };
            match read(&path, &file) {
                Ok(read) if self.alive.len() + read.alive.len() > LINES_MAX => {
                    tracing::warn!(path = %path.display(), "another instance's journal is left alone: this one is full");
                }
                Ok(read) => {
                    for text in read.alive.into_values() {
                        let key = self.alive.last_key_value().map_or(0, |(key, _)| key.saturating_add(1));
                        self.alive.insert(key, text);
                    }
                    adopted.push((path, file));
                }
                Err(error) => {
                    tracing::warn!(path = %path.display(), %error, "another instance's journal cannot be read");
                }
            }
        }
        adopted
    }

    /// Does what notes say. A failure is for the caller to tell; what could not be written is written with the next.
    fn apply(&mut self, notes: &[Note]) -> io::Result<()> {
        let mut text = String::new();
        for note in notes {
            match note {
                Note::Put(key, line) if !lines::is_text(line) => {
                    tracing::error!(key, bytes = line.len(), "not a line for the journal: left out");
                }
                Note::Put(key, _) if self.alive.len() >= LINES_MAX && !self.alive.contains_key(key) => {
                    tracing::error!(key, "the journal holds {LINES_MAX} lines: this one is left out");
                }
                Note::Put(key, line) => {
                    text += &lines::put(*key, line);
                    self.alive.insert(*key, line.clone());
                }
                Note::Remove(key) => {
                    if self.alive.remove(key).is_some() {
                        text += &lines::remove(*key);
                    }
                }
            }
        }
        if text.is_empty() && !self.is_behind {
            return Ok(());
        }
        let written = if self.is_behind {
            // Neither what is in the file nor the file itself is to be trusted.
            self.rewrite()
        } else if self.alive.is_empty() {
            self.empty()
        } else {
            self.append(&text)
        };
        self.is_behind = written.is_err();
        written?;
        if self.file_bytes > REWRITE_BYTES_MIN {
            self.measure_alive();
            if self.file_bytes > REWRITE_FACTOR * self.alive_bytes {
                // The file as it is holds all there is: a failure here costs nothing but room.
                self.rewrite()?;
            }
        }
        Ok(())
    }

    fn append(&mut self, text: &str) -> io::Result<()> {
        (&*self.file).write_all(text.as_bytes())?;
        self.file.sync_data()?;
        self.file_bytes += text.len() as u64;
        Ok(())
    }

    /// Leaves nothing in the file, which takes the place of removing the last line. One that keeps its bytes has lost nothing.
    fn empty(&mut self) -> io::Result<()> {
        if self.file_bytes > 0 {
            self.file.set_len(0)?;
            self.file.sync_all()?;
            self.file_bytes = 0;
        }
        Ok(())
    }

    /// Writes what is alive to a file beside this one, and puts that in its place. It is locked before it has the name, so
    /// nobody else ever finds the name free.
    fn rewrite(&mut self) -> io::Result<()> {
        let new = self.path.with_extension("journal-new");
        let file = options().create(true).open(&new)?;
        let file = Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| io::Error::from(errno))?;
        // One may have been left behind by a crash.
        file.set_len(0)?;
        let text: String = self.alive.iter().map(|(key, line)| lines::put(*key, line)).collect();
        (&*file).write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&new, &self.path)?;
        self.file = file;
        (self.file_bytes, self.alive_bytes) = (text.len() as u64, text.len() as u64);
        // Without it the name may still be the old file's after a power cut.
        File::open(self.path.parent().unwrap_or(Path::new(".")))?.sync_all()?;
        self.is_behind = false;
        Ok(())
    }

    fn measure(&mut self) {
        self.file_bytes = self.file.metadata().map_or(0, |file| file.len());
        self.measure_alive();
    }

    fn measure_alive(&mut self) {
        self.alive_bytes = self.alive.iter().map(|(key, line)| lines::put(*key, line).len() as u64).sum();
    }
}

/// Starts the thread that writes what control notes. It ends when control is gone and all is written.
pub fn spawn(endpoint: Endpoint<Message>, mut journal: Journal, counters: Arc<Counters>) -> io::Result<Crew> {
    let inbox = endpoint.inbox;
    let mut crew = Crew::new("journal");
    crew.spawn(move || {
        let mut is_failing = false;
        loop {
            let mut notes = Vec::new();
            let is_closed = loop {
                if notes.len() == BATCH_MAX {
                    break false;
                }
                match inbox.take() {
                    Mail::Message(Message::Note(note)) => notes.push(note),
                    Mail::Message(_) | Mail::Stop => {}
                    Mail::Nothing => break false,
                    Mail::Closed => break true,
                }
            };
            if !notes.is_empty() || (is_closed && journal.is_behind) {
                match journal.apply(&notes) {
                    Ok(()) => {
                        count(&counters.journal_writes);
                        if std::mem::take(&mut is_failing) {
                            tracing::info!("the journal is written again");
                        }
                    }
                    Err(error) => {
                        count(&counters.journal_failures);
                        if !std::mem::replace(&mut is_failing, true) {
                            warn_of(&journal.path, &error);
                        }
                    }
                }
            }
            if is_closed {
                return;
            }
            if notes.len() < BATCH_MAX
                && let Err(error) = inbox.wait(None)
            {
                return tracing::error!(%error, "the journal cannot wait for its mailbox: it is not written any more");
            }
        }
    })?;
    Ok(crew)
}

fn warn_of(path: &Path, error: &io::Error) {
    tracing::warn!(
        path = %path.display(),
        %error,
        "the journal cannot be written: calls that are up in a crash now are left to Meta's timers"
    );
}

/// How a file is opened that nobody else is to read or to have put there.
fn options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).append(true).mode(0o600).custom_flags((OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK).bits());
    options
}

enum Locked {
    Ours(Flock<File>),
    /// By a process that lives.
    Held,
    /// It is not there, or is replaced faster than it can be locked.
    Gone,
}

/// Opens a file and locks it.
fn lock(path: &Path, create: bool) -> io::Result<Locked> {
    for _ in 0..OPEN_ATTEMPTS {
        let file = match options().create(create).open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound && !create => return Ok(Locked::Gone),
            Err(error) => return Err(error),
        };
        match claim(path, file)? {
            Locked::Gone => {}
            claimed => return Ok(claimed),
        }
    }
    Ok(Locked::Gone)
}

/// Locks an open file, and sees that it still has its name: whoever held it may have put a new one in its place meanwhile.
fn claim(path: &Path, file: File) -> io::Result<Locked> {
    let opened = file.metadata()?;
    if !opened.is_file() {
        return Err(io::Error::new(ErrorKind::InvalidInput, "it is not a regular file"));
    }
    let file = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(file) => file,
        Err((_, Errno::EWOULDBLOCK)) => return Ok(Locked::Held),
        Err((_, errno)) => return Err(errno.into()),
    };
    let named = fs::symlink_metadata(path);
    let is_named = named.is_ok_and(|named| (named.dev(), named.ino()) == (opened.dev(), opened.ino()));
    Ok(if is_named { Locked::Ours(file) } else { Locked::Gone })
}

/// What a file holds; what is wrong with it is logged, in one line.
fn read(path: &Path, file: &File) -> io::Result<Read> {
    let mut bytes = Vec::new();
    let mut file = file;
    (&mut file).take(FILE_BYTES_MAX).read_to_end(&mut bytes)?;
    let mut read = lines::read(&bytes);
    if file.metadata()?.len() > FILE_BYTES_MAX {
        read.beyond += 1;
    }
    let Read { damaged, beyond, .. } = read;
    if damaged + beyond > 0 {
        let path = path.display();
        tracing::warn!(%path, damaged, beyond, "lines of the journal are damaged, as after a power cut, or beyond its bounds");
    }
    Ok(read)
}

/// The journals of other instances in the folder.
fn others(folder: &Path, own: &Path) -> Vec<PathBuf> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) => {
            tracing::warn!(folder = %folder.display(), %error, "other instances' journals cannot be looked for");
            return Vec::new();
        }
    };
    let is_journal = |path: &PathBuf| {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        path != own && name.starts_with(PREFIX) && name.ends_with(SUFFIX)
    };
    let mut paths: Vec<_> = entries.filter_map(|entry| Some(entry.ok()?.path())).filter(is_journal).collect();
    paths.sort();
    paths.truncate(OTHERS_MAX);
    paths
}

/// Empties a file whose lines are safe elsewhere, under its lock.
fn empty((path, file): (PathBuf, Flock<File>)) {
    if let Err(error) = file.set_len(0).and_then(|()| file.sync_all()) {
        tracing::warn!(path = %path.display(), %error, "another instance's journal was taken over and cannot be emptied");
    }
}
