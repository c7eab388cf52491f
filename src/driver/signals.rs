//! SIGTERM and SIGINT become [`crate::io::Input::Stop`] of control.

use std::io;
use std::thread::JoinHandle;

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::{Handle, Signals};

use super::mail::Stopper;

/// The thread that waits for signals; ends when dropped.
#[derive(Debug)]
pub struct Forwarder {
    handle: Handle,
    thread: Option<JoinHandle<()>>,
}

/// From here on every SIGTERM and SIGINT asks the receiver to stop, one input each, instead of ending the process.
/// SIGPIPE needs nothing: the standard library ignores it, and the drivers send without it.
pub fn forward(stopper: Stopper) -> io::Result<Forwarder> {
    let mut signals = Signals::new([SIGTERM, SIGINT])?;
    let handle = signals.handle();
    let thread = std::thread::Builder::new().name("signals".into()).spawn(move || {
        for _ in signals.forever() {
            stopper.stop();
        }
    })?;
    Ok(Forwarder { handle, thread: Some(thread) })
}

impl Drop for Forwarder {
    fn drop(&mut self) {
        self.handle.close();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::driver::mail::{Mail, mailbox};

    #[test]
    fn each_signal_is_one_stop() {
        let (sender, inbox) = mailbox::<()>().unwrap();
        let forwarder = forward(sender.stopper()).unwrap();
        for signal in [SIGTERM, SIGINT] {
            signal_hook::low_level::raise(signal).unwrap();
            inbox.wait(None).unwrap();
            assert_eq!([inbox.take(), inbox.take()], [Mail::Stop, Mail::Nothing]);
        }
        drop(forwarder);
    }
}
