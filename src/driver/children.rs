//! Child processes: this same program in another role, on cores that are chosen for it.
//!
//! A child never outlives its handle, never waits for us to read what it prints, and has only the environment that it is
//! given or, where it stands in for us, ours. This file must not know what the roles are.

use std::fs;
use std::io::{self, Read};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

/// What is kept of each of a child's two streams, from the start on: a long report, and far more than an error.
const OUTPUT_BYTES_MAX: usize = 4 << 20;

/// The kernel counts a process's CPU time in hundredths of a second in /proc, on every machine that this runs on.
const TICKS_PER_SECOND: f64 = 100.0;

/// A running child; killed when this is dropped.
#[derive(Debug)]
pub struct Child {
    process: std::process::Child,
    stdout: Arc<Mutex<Vec<u8>>>,
    stderr: Arc<Mutex<Vec<u8>>>,
    readers: Vec<thread::JoinHandle<()>>,
}

impl Child {
    /// Starts this program with these arguments and this environment alone. `cores` is where it may run; empty: anywhere.
    pub fn start(arguments: &[String], environment: &[(&str, String)], cores: &[usize]) -> io::Result<Self> {
        let program = std::env::current_exe()?;
        let mut command = Command::new(program);
        command.args(arguments).env_clear().envs(environment.iter().map(|(name, value)| (name, value)));
        Self::spawn(&mut command, cores)
    }

    /// Starts this program with these arguments and the environment of this process, with these changes: a value is set,
    /// `None` takes a variable away.
    pub fn start_alike(arguments: &[String], changes: &[(&str, Option<String>)]) -> io::Result<Self> {
        let program = std::env::current_exe()?;
        let mut command = Command::new(program);
        command.args(arguments);
        for (name, value) in changes {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        Self::spawn(&mut command, &[])
    }

    fn spawn(command: &mut Command, cores: &[usize]) -> io::Result<Self> {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut process = on_cores(cores, || command.spawn())?;
        let (stdout, stderr) = (Arc::default(), Arc::default());
        let out = process.stdout.take().expect("asked for above");
        let err = process.stderr.take().expect("asked for above");
        let readers = vec![collect(out, Arc::clone(&stdout)), collect(err, Arc::clone(&stderr))];
        Ok(Self { process, stdout, stderr, readers })
    }

    /// What it has printed so far.
    pub fn stdout(&self) -> String {
        text(&self.stdout)
    }

    /// What it has complained of so far.
    pub fn stderr(&self) -> String {
        text(&self.stderr)
    }

    /// Whether it has ended; all that it printed is there then.
    pub fn has_ended(&mut self) -> bool {
        let ended = !matches!(self.process.try_wait(), Ok(None));
        if ended {
            for reader in self.readers.drain(..) {
                let _ = reader.join();
            }
        }
        ended
    }

    /// CPU time it has used, in seconds.
    pub fn cpu_seconds(&self) -> Option<f64> {
        cpu_seconds(&fs::read_to_string(format!("/proc/{}/stat", self.process.id())).ok()?)
    }

    /// Memory it holds, in bytes.
    pub fn memory_bytes(&self) -> Option<f64> {
        memory_bytes(&fs::read_to_string(format!("/proc/{}/status", self.process.id())).ok()?)
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        let _ = self.process.kill(); // it may have ended already
        let _ = self.process.wait();
    }
}

/// Runs `start` on these cores: what it starts stays there.
fn on_cores<T>(cores: &[usize], start: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    if cores.is_empty() {
        return start();
    }
    let this_thread = Pid::from_raw(0);
    let before = sched_getaffinity(this_thread)?;
    let mut set = CpuSet::new();
    cores.iter().try_for_each(|core| set.set(*core))?;
    sched_setaffinity(this_thread, &set)?;
    let started = start();
    sched_setaffinity(this_thread, &before)?;
    started
}

fn collect(mut from: impl Read + Send + 'static, into: Arc<Mutex<Vec<u8>>>) -> thread::JoinHandle<()> {
    thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok(len @ 1..) = from.read(&mut buffer) {
            let mut output = into.lock().expect("nothing panics while it is held");
            let room = OUTPUT_BYTES_MAX.saturating_sub(output.len());
            output.extend_from_slice(&buffer[..len.min(room)]);
        }
    })
}

fn text(of: &Mutex<Vec<u8>>) -> String {
    String::from_utf8_lossy(&of.lock().expect("nothing panics while it is held")).into_owned()
}

/// User and system time: the 14th and 15th field. The second is a name in parentheses and may hold anything.
fn cpu_seconds(stat: &str) -> Option<f64> {
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_whitespace().skip(11);
    let mut ticks = || fields.next()?.parse::<f64>().ok();
    Some((ticks()? + ticks()?) / TICKS_PER_SECOND)
}

fn memory_bytes(status: &str) -> Option<f64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kilobytes: f64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kilobytes * 1024.0)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::driver::system::cores;

    fn shell(script: &str, cores: &[usize]) -> Child {
        Child::spawn(Command::new("sh").args(["-c", script]), cores).unwrap()
    }

    #[test]
    fn a_child_runs_on_its_cores_and_what_it_prints_is_all_there_when_it_has_ended() {
        let core = *cores().last().unwrap();
        let mut child = shell("grep Cpus_allowed_list /proc/self/status; echo problem >&2", &[core]);
        while !child.has_ended() {
            thread::yield_now();
        }
        assert_eq!(child.stdout().split_whitespace().last(), Some(core.to_string().as_str()));
        assert_eq!(child.stderr(), "problem\n");
        assert!(cores().len() > 1 || cores() == [core], "this thread is where it was");
    }

    #[test]
    fn a_dropped_child_is_gone() {
        let mut child = shell("exec sleep 600", &[]);
        let traces = format!("/proc/{}", child.process.id());
        assert!(!child.has_ended() && Path::new(&traces).exists());
        assert!(child.cpu_seconds().is_some_and(|seconds| seconds < 60.0));
        assert!(child.memory_bytes().is_some_and(|bytes| bytes > 1_000.0));
        drop(child);
        assert!(!Path::new(&traces).exists());
    }

    #[test]
    fn usage_is_read_behind_any_name() {
        let stat =
            "77 (a) b (c)) S 1 77 77 0 -1 4194560 100 0 0 0 250 50 0 0 20 0 1 0 100 1000 100 18446744073709551615";
        assert_eq!(cpu_seconds(stat), Some(3.0));
        assert_eq!(memory_bytes("Name:\tx\nVmRSS:\t    1024 kB\n"), Some(1_048_576.0));
        assert_eq!((cpu_seconds(""), memory_bytes("")), (None, None));
    }
}
