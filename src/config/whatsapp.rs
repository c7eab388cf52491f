//! Meta's webhook and its Graph API: what is said on the command line, checked.

use std::path::PathBuf;

use super::{EventsUrl, Secret};

/// What is known of WhatsApp before any file is read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WhatsApp {
    /// Any of them may have signed a webhook; those that the file of numbers names come on top.
    pub app_secret: Option<Secret>,
    /// What Meta shows when the webhook is set up.
    pub verify_token: Secret,
    /// Of numbers that name none.
    pub access_token: Option<Secret>,
    /// The only number, where there is no file.
    pub phone_number_id: Option<String>,
    /// The file of numbers.
    pub numbers_file: Option<PathBuf>,
    /// The Graph API, version included: `https://graph.facebook.com/v24.0`.
    pub graph_url: EventsUrl,
    /// Where webhooks go that hold more than call events; `None`: nowhere.
    pub forward_url: Option<EventsUrl>,
}
