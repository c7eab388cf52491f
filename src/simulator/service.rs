//! What `--serve` serves beside the Graph API: scenarios on demand, and what came of them.
//!
//! It asks for no token: whoever reaches it can make the simulator call the one webhook that it was given, and nothing else.

use serde_json::{Value, json};

use crate::http::{Method, Request, Response};

use super::{Simulator, scenarios};

/// Scenarios that wait for their turn.
const WAITING_MAX: usize = 256;

impl Simulator {
    /// The answer to a request of this kind; `None` for all others.
    pub(super) fn service(&mut self, request: &Request) -> Option<Response> {
        let segments: Vec<&str> = request.head.target.segments.iter().map(String::as_str).collect();
        if !self.config.serve || segments.first() != Some(&"simulator") {
            return None;
        }
        let (status, body) = match (&request.head.method, &segments[1..]) {
            (Method::Post, ["calls"]) => match self.ask_for(&request.body) {
                Ok(name) => (200, json!({ "scenario": name, "waiting": self.waiting.len() })),
                Err((status, why)) => (status, json!({ "error": why })),
            },
            (Method::Get, ["report"]) => {
                (200, serde_json::to_value(&self.report).expect("numbers and strings are JSON"))
            }
            _ => (404, json!({ "error": "POST /simulator/calls and GET /simulator/report are served here." })),
        };
        Some(Response::new(status, "application/json", body.to_string().into_bytes()))
    }

    fn ask_for(&mut self, body: &[u8]) -> Result<String, (u16, String)> {
        let body: Value = serde_json::from_slice(body).map_err(|_| (400, "The body is not JSON.".to_owned()))?;
        let name = body.get("scenario").and_then(Value::as_str).unwrap_or("happy");
        let found = scenarios::find(&[name]).map_err(|_| {
            (400, "The scenario is not known; simulate-whatsapp --list shows those that are.".to_owned())
        })?;
        if self.is_stopping || self.waiting.len() + found.len() > WAITING_MAX {
            return Err((503, "No more scenarios are taken now.".to_owned()));
        }
        self.wanted += found.len();
        self.waiting.extend(found);
        Ok(name.to_owned())
    }
}
