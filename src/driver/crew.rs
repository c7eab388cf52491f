//! Helper threads that end by themselves once control is gone, and are waited for as long as the end of the process allows.

use std::convert::Infallible;
use std::io;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::Duration;

/// Threads that do one thing together.
#[derive(Debug)]
pub struct Crew {
    name: &'static str,
    /// Closed when the last of them has ended, in whatever way.
    ended: Receiver<Infallible>,
    at_work: Option<Sender<Infallible>>,
}

impl Crew {
    pub(super) fn new(name: &'static str) -> Self {
        let (at_work, ended) = mpsc::channel();
        Self { name, ended, at_work: Some(at_work) }
    }

    /// One more, which does this and ends.
    pub(super) fn spawn(&mut self, work: impl FnOnce() + Send + 'static) -> io::Result<()> {
        let at_work = self.at_work.clone();
        thread::Builder::new().name(self.name.into()).spawn(move || {
            work();
            drop(at_work);
        })?;
        Ok(())
    }

    /// Waits until all of them have ended, at most so long; whether they have.
    pub fn finish(mut self, time_max: Duration) -> bool {
        self.at_work = None;
        let ended = matches!(self.ended.recv_timeout(time_max), Err(RecvTimeoutError::Disconnected));
        if !ended {
            tracing::warn!(thread = self.name, "the process ends before what it was about to do is done");
        }
        ended
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_all_is_waited_for_and_no_longer_than_said() {
        let mut crew = Crew::new("crew");
        let (tell, told) = mpsc::channel::<()>();
        crew.spawn(|| {}).unwrap();
        crew.spawn(|| panic!("as a test")).unwrap();
        crew.spawn(move || assert!(told.recv().is_err())).unwrap();
        drop(tell);
        assert!(crew.finish(Duration::from_secs(20)), "one that panics has ended too");

        let mut crew = Crew::new("crew");
        let (tell, told) = mpsc::channel::<()>();
        crew.spawn(move || assert!(told.recv().is_err())).unwrap();
        assert!(!crew.finish(Duration::from_millis(1)));
        drop(tell);
    }
}
