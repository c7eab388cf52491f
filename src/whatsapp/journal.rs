//! One line for each call that Meta believes alive: what it takes to end it there after a crash.

use crate::call_id::CallId;

/// A call that Meta believes alive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Alive {
    /// The call.
    pub call: CallId,
    /// Meta's id of the business's number.
    pub phone_number_id: String,
    /// When its webhook came: seconds since 1970.
    pub since_sec: u64,
}

impl Alive {
    /// As one line, without its end.
    pub fn encode(&self) -> String {
        todo!()
    }

    /// Of such a line; `None` where it is none.
    pub fn decode(line: &str) -> Option<Self> {
        let _ = line;
        todo!()
    }
}
