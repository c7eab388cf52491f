//! SIGTERM and SIGINT become [`crate::io::Input::Stop`] of control; SIGHUP runs what the owner gave for it.
//!
//! It runs on this thread, which nothing else waits for: reading files there holds up no loop.

use std::io;
use std::thread::JoinHandle;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
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
    forward_all(stopper, &[SIGTERM, SIGINT], || {})
}

/// The same, and every SIGHUP runs `reload` instead of ending the process. Signals that come while it runs are taken after
/// it; several SIGHUPs may then count as one.
pub fn forward_with_reload(stopper: Stopper, reload: impl FnMut() + Send + 'static) -> io::Result<Forwarder> {
    forward_all(stopper, &[SIGTERM, SIGINT, SIGHUP], reload)
}

fn forward_all(stopper: Stopper, caught: &[i32], mut reload: impl FnMut() + Send + 'static) -> io::Result<Forwarder> {
    let mut signals = Signals::new(caught)?;
    let handle = signals.handle();
    let thread = std::thread::Builder::new().name("signals".into()).spawn(move || {
        for signal in signals.forever() {
            match signal {
                SIGHUP => reload(),
                _ => stopper.stop(),
            }
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
    fn each_signal_is_one_stop_and_sighup_is_a_reload() {
        let (sender, inbox) = mailbox::<&str>().unwrap();
        let stopper = sender.stopper();
        let forwarder = forward_with_reload(stopper, move || sender.send("reload").unwrap()).unwrap();
        for (signal, mail) in [
            (SIGTERM, Mail::Stop),
            (SIGHUP, Mail::Message("reload")),
            (SIGINT, Mail::Stop),
            (SIGHUP, Mail::Message("reload")),
        ] {
            signal_hook::low_level::raise(signal).unwrap();
            inbox.wait(None).unwrap();
            assert_eq!([inbox.take(), inbox.take()], [mail, Mail::Nothing]);
        }
        drop(forwarder);
    }
}
