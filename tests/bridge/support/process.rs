//! A child process that never outlives its guard, with all that it prints.
//!
//! This file must not know what the process is.

use std::io::Read;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// The time between two looks at whether a process has ended.
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// What is kept of a process's output; the rest is read and dropped, so that it never waits for us.
const OUTPUT_MAX: usize = 4 << 20;

/// A running process, killed when this is dropped.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    output: Arc<Mutex<Vec<u8>>>,
    readers: Vec<JoinHandle<()>>,
}

impl Process {
    /// Starts the command without input.
    ///
    /// # Panics
    /// When it cannot be started.
    pub(crate) fn start(command: &mut Command) -> Self {
        Self::start_with_input(command, Stdio::null())
    }

    /// The same with this as its input.
    pub(crate) fn start_with_input(command: &mut Command, input: Stdio) -> Self {
        let command = command.stdin(input).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        command.stdin(Stdio::null()); // what was passed on is the child's alone now
        let output = Arc::new(Mutex::new(Vec::new()));
        let stdout = child.stdout.take().expect("asked for above");
        let stderr = child.stderr.take().expect("asked for above");
        let readers = vec![collect(stdout, output.clone()), collect(stderr, output.clone())];
        Self { child, output, readers }
    }

    /// What has been read so far of what the process printed, on both streams.
    pub(crate) fn output(&self) -> String {
        let output = self.output.lock().expect("its holders cannot panic");
        String::from_utf8_lossy(&output).into_owned()
    }

    /// The process id.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// How it ended, if it has.
    pub(crate) fn try_wait(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("a child can be waited for")
    }

    /// Asks it to end (SIGTERM), waits, and returns how it ended and all that it printed.
    ///
    /// # Panics
    /// When it does not end within `patience`.
    pub(crate) fn terminate(mut self, patience: Duration) -> (ExitStatus, String) {
        if self.try_wait().is_none() {
            self.signal();
        }
        self.ended(patience)
    }

    /// Asks it to end (SIGTERM). It must not have been waited for: its id is ours until then.
    pub(crate) fn signal(&self) {
        // The shell's own `kill`: std has no other signal than SIGKILL.
        let asked = Command::new("sh").args(["-c", &format!("kill -TERM {}", self.id())]).status();
        assert!(asked.expect("there is a shell").success(), "the process is ours");
    }

    /// Waits until it has ended, and returns how it did and all that it printed.
    ///
    /// # Panics
    /// When it does not end within `patience`.
    pub(crate) fn ended(mut self, patience: Duration) -> (ExitStatus, String) {
        let deadline = Instant::now() + patience;
        let status = loop {
            if let Some(status) = self.try_wait() {
                break status;
            }
            assert!(Instant::now() < deadline, "did not end within {patience:?}:\n{}", self.output());
            std::thread::sleep(LOOK_AGAIN);
        };
        self.join_readers();
        (status, self.output())
    }

    fn join_readers(&mut self) {
        for reader in self.readers.drain(..) {
            reader.join().expect("a reader cannot panic");
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill(); // it may have ended already
        let _ = self.child.wait();
    }
}

fn collect(mut from: impl Read + Send + 'static, into: Arc<Mutex<Vec<u8>>>) -> JoinHandle<()> {
    std::thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok(len @ 1..) = from.read(&mut buffer) {
            let mut output = into.lock().expect("its holders cannot panic");
            let room = OUTPUT_MAX.saturating_sub(output.len());
            output.extend_from_slice(&buffer[..len.min(room)]);
        }
    })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn shell(script: &str) -> Process {
        Process::start(Command::new("sh").args(["-c", script]))
    }

    #[test]
    fn a_process_that_ends_when_asked_gives_its_status_and_output() {
        let mut process =
            shell("trap 'echo bye; exit 3' TERM; echo up; echo problem >&2; while :; do sleep 0.01; done");
        while !process.output().contains("up") || !process.output().contains("problem") {
            assert_eq!(process.try_wait(), None);
            std::thread::yield_now();
        }
        let (status, output) = process.terminate(Duration::from_secs(10));
        assert_eq!(status.code(), Some(3));
        assert!(output.contains("bye"), "{output}");
    }

    #[test]
    fn a_dropped_process_is_gone() {
        let process = shell("exec sleep 600");
        let traces = format!("/proc/{}", process.id());
        assert!(Path::new(&traces).exists());
        drop(process);
        assert!(!Path::new(&traces).exists());
    }
}
