//! The effective settings, each under its heading and with where it came from.

use serde::Serialize;

use crate::config::Config;

/// What the command line knows of a setting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// Its variable.
    pub variable: String,
    /// The heading it stands under in `--help`.
    pub heading: String,
    /// Who set it: `None` for a default.
    pub set_by: Option<String>,
}

/// A setting.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Setting {
    /// Its variable.
    pub variable: String,
    /// What holds; secrets hidden.
    pub value: String,
    /// Its heading.
    pub heading: String,
    /// Who set it: absent for a default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub set_by: Option<String>,
}

/// All of them, in the order in which the configuration tells them.
pub fn settings(config: &Config, origins: &[Origin]) -> Vec<Setting> {
    let find = |variable: &str| origins.iter().find(|origin| origin.variable == variable);
    let text = config.to_string();
    let setting = |line: &str| {
        let (variable, value) = line.split_once(' ')?;
        let origin = find(variable);
        let mut set_by = origin.and_then(|origin| origin.set_by.clone());
        // A variable of its own that changes a part of this one.
        if variable == "BRIDGE_LISTEN"
            && let Some(port) = find("PORT").and_then(|origin| origin.set_by.as_deref())
        {
            set_by = Some(match set_by {
                Some(address) => format!("{address}, its port by {port}"),
                None => format!("its port by {port}"),
            });
        }
        Some(Setting {
            variable: variable.to_owned(),
            value: value.trim_start().to_owned(),
            heading: origin.map_or_else(|| "Others".to_owned(), |origin| origin.heading.clone()),
            set_by,
        })
    };
    let mut found: Vec<Setting> = Vec::new();
    for line in text.lines() {
        match (setting(line), found.last_mut()) {
            // A line without a name has more to say about the one above it.
            (Some(more), Some(last)) if more.variable.is_empty() => last.value.extend([", ", &more.value]),
            (Some(setting), _) => found.push(setting),
            (None, _) => {}
        }
    }
    found
}
