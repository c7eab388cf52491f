//! The steps of a visit, told and noted as they end.

use std::time::{Duration, Instant};

use crate::doctor::steps::{Ended, Failure, Name, Report, Step};
use crate::driver::system;

use super::Halt;

/// What is told while it goes on.
#[derive(Debug)]
pub enum Told<'a> {
    /// Something about the call as a whole.
    Note(&'a str),
    /// A step begins.
    Begins(Name),
    /// It is over.
    Ended(&'a Step),
}

/// The notes.
pub(super) struct Book<'a> {
    tell: &'a mut dyn FnMut(Told<'_>),
    notes: Vec<String>,
    steps: Vec<Step>,
    /// Whether TLS is one of them.
    pub(super) has_tls: bool,
    /// When the step under way began.
    began: Instant,
    /// When the last one ended.
    ended: Instant,
}

impl<'a> Book<'a> {
    pub(super) fn new(tell: &'a mut dyn FnMut(Told<'_>), has_tls: bool) -> Self {
        let now = system::now();
        Self { tell, notes: Vec::new(), steps: Vec::new(), has_tls, began: now, ended: now }
    }

    pub(super) fn note(&mut self, text: String) {
        (self.tell)(Told::Note(&text));
        self.notes.push(text);
    }

    pub(super) fn begin(&mut self, name: Name) {
        self.began = system::now();
        (self.tell)(Told::Begins(name));
    }

    /// A step of the call, which goes on by itself: it began when the one before it ended.
    pub(super) fn follow(&mut self, name: Name) {
        self.begin(name);
        self.began = self.ended;
    }

    /// A step that is over, and took so long.
    pub(super) fn took(&mut self, name: Name, took: Duration, outcome: Result<String, Failure>) -> Result<(), Halt> {
        let now = system::now();
        self.began = now.checked_sub(took).unwrap_or(now);
        self.end_at(now, name, outcome)
    }

    pub(super) fn end(&mut self, name: Name, outcome: Result<String, Failure>) -> Result<(), Halt> {
        self.end_at(system::now(), name, outcome)
    }

    /// Notes how a step ended, and those before it that were not reached.
    pub(super) fn end_at(&mut self, at: Instant, name: Name, outcome: Result<String, Failure>) -> Result<(), Halt> {
        self.pass_over(|other| other < name);
        let (ended, halt) = match outcome {
            Ok(found) => (Ended::Ok(found), Ok(())),
            Err(failure) => (Ended::Failed(failure), Err(Halt::Failed)),
        };
        self.ended = at;
        self.push(Step { name, took: at.saturating_duration_since(self.began), ended });
        halt
    }

    /// All of it; what is left was not reached.
    pub(super) fn close(mut self) -> Report {
        self.pass_over(|_| true);
        let passed = self.steps.iter().all(|step| matches!(step.ended, Ended::Ok(_)));
        Report { passed, notes: self.notes, steps: self.steps }
    }

    fn pass_over(&mut self, are_meant: impl Fn(Name) -> bool) {
        for name in Name::ALL.into_iter().filter(|name| are_meant(*name)) {
            let is_noted = self.steps.iter().any(|step| step.name == name);
            if !is_noted && (name != Name::Tls || self.has_tls) {
                self.push(Step { name, took: Duration::ZERO, ended: Ended::NotReached });
            }
        }
    }

    fn push(&mut self, step: Step) {
        (self.tell)(Told::Ended(&step));
        self.steps.push(step);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_passed_over_is_told_before_the_step_that_failed_and_the_rest_behind_it() {
        let mut told = Vec::new();
        let mut tell = |what: Told<'_>| {
            if let Told::Ended(step) = what {
                told.push((step.name, matches!(step.ended, Ended::NotReached)));
            }
        };
        let mut book = Book::new(&mut tell, false);
        book.begin(Name::Dns);
        assert!(book.end(Name::Dns, Ok("127.0.0.1".into())).is_ok());
        let took = Duration::from_millis(7);
        assert!(book.took(Name::Token, took, Err(Failure::new("401", "another token", "--token"))).is_err());
        let report = book.close();
        assert!(!report.passed && report.steps.len() == Name::ALL.len() - 1, "no TLS");
        assert_eq!(report.steps[2].took, took);
        assert_eq!(told[..4], [(Name::Dns, false), (Name::Tcp, true), (Name::Token, false), (Name::Ready, true)]);
        assert!(told[3..].iter().all(|(_, passed_over)| *passed_over));
    }
}
