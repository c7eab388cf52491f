//! The settings of the installed service, for a command that shall see what the service sees.
//!
//! systemd reads the service's variables from a file and hands its credentials over; a shell has neither. So the command is
//! run once more, with both: it replaces this process, and is none the wiser.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

/// Where the package puts them.
pub const FOLDER: &str = "/etc/voice-media-bridge";

/// The flag that asks for them.
const FLAG: &str = "--installed";

/// The file of variables, and the folder of credentials.
const VARIABLES: &str = "voice-media-bridge.env";
const CREDENTIALS: &str = "credentials";

/// How the names of our variables begin.
const OURS: [&str; 3] = ["BRIDGE_", "OPENAI_", "WHATSAPP_"];

/// What the units set themselves: the folder that StateDirectory= makes.
const STATE: (&str, &str) = ("BRIDGE_STATE_DIR", "/var/lib/voice-media-bridge");

/// Runs this command again with the settings of the installed service, where it is one of `commands` and its arguments ask
/// for that. Returns where they do not, and the error where it cannot be done.
pub fn adopt(commands: &[&str]) -> io::Result<()> {
    let (asked, mut others): (Vec<OsString>, Vec<OsString>) =
        std::env::args_os().skip(1).partition(|argument| folder_of(argument).is_some());
    if !others.first().and_then(|command| command.to_str()).is_some_and(|command| commands.contains(&command)) {
        return Ok(());
    }
    let Some(folder) = asked.first().and_then(folder_of) else { return Ok(()) };
    let folder = Path::new(&folder);
    let text = fs::read_to_string(folder.join(VARIABLES))?;
    let credentials = folder.join(CREDENTIALS);
    let mut variables = variables(&text);
    // Where systemd holds the socket it is what counts, and BRIDGE_LISTEN does not move it.
    if let Some(listen) = socket() {
        variables.retain(|(name, _)| name != "BRIDGE_LISTEN" && name != "PORT");
        variables.push(("BRIDGE_LISTEN".into(), listen.to_string()));
    }
    // A bridge of its own would not be the service.
    if others.first().is_some_and(|command| command == "doctor") && !others.iter().any(|other| other == "--no-start") {
        others.push("--no-start".into());
    }
    let (state, folder) = STATE;
    if !variables.iter().any(|(name, _)| name == state) {
        variables.push((state.into(), folder.into()));
    }
    let has = |variables: &[(String, String)], name: &str| variables.iter().any(|(other, _)| other == name);
    if !has(&variables, "BRIDGE_URL") {
        variables.push(("BRIDGE_URL".into(), url(&variables)));
    }
    let mut command = Command::new(std::env::current_exe()?);
    // What the shell says of the same things is not the service's.
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(|name| OURS.iter().any(|ours| name.starts_with(ours)) || name == "PORT") {
            command.env_remove(name);
        }
    }
    if fs::read_dir(&credentials).is_ok() {
        command.env("CREDENTIALS_DIRECTORY", &credentials);
        // Commands that are clients know no credentials; where the bridge is judged, it is the same file.
        let token = credentials.join("api-token");
        let is_set = ["BRIDGE_API_TOKEN", "BRIDGE_API_TOKEN_FILE"].iter().any(|name| has(&variables, name));
        if token.exists() && !is_set {
            command.env("BRIDGE_API_TOKEN_FILE", token);
        }
    }
    Err(command.args(others).envs(variables).exec())
}

/// The folder that an argument names, if it is the flag.
fn folder_of(argument: &OsString) -> Option<String> {
    let rest = argument.to_str()?.strip_prefix(FLAG)?;
    match rest.strip_prefix('=') {
        Some(folder) => Some(folder.to_owned()),
        None => rest.is_empty().then(|| FOLDER.to_owned()),
    }
}

/// `NAME=VALUE` a line, as systemd's EnvironmentFile= has them: `#` and `;` begin comments, quotes around a value fall away.
fn variables(text: &str) -> Vec<(String, String)> {
    let variable = |line: &str| {
        let line = line.trim();
        let (name, value) = line.split_once('=').filter(|_| !line.starts_with(['#', ';']))?;
        let quoted = |quote: char| value.strip_prefix(quote)?.strip_suffix(quote);
        let value = quoted('"').or_else(|| quoted('\'')).unwrap_or(value);
        Some((name.trim().to_owned(), value.to_owned()))
    };
    text.lines().filter_map(variable).collect()
}

/// Where the API's socket listens, if systemd has one.
fn socket() -> Option<SocketAddr> {
    let unit = "voice-media-bridge.socket";
    let shown = Command::new("systemctl").args(["show", "--property=ActiveState,Listen", unit]).output().ok()?;
    listening(&String::from_utf8_lossy(&shown.stdout))
}

/// The address in what `systemctl show` says of an active socket.
fn listening(shown: &str) -> Option<SocketAddr> {
    let active = shown.lines().any(|line| line == "ActiveState=active");
    let listen = shown.lines().find_map(|line| line.strip_prefix("Listen=")?.strip_suffix(" (Stream)"));
    listen.filter(|_| active)?.parse().ok()
}

/// Where the service's API is, seen from this machine.
fn url(variables: &[(String, String)]) -> String {
    let get = |name: &str| variables.iter().rev().find(|(other, _)| other == name).map(|(_, value)| value.as_str());
    let listen = get("BRIDGE_LISTEN").and_then(|text| text.parse::<SocketAddr>().ok());
    let mut listen = listen.unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 8080)));
    if listen.ip().is_unspecified() {
        listen.set_ip([127, 0, 0, 1].into());
    }
    if let Some(port) = get("PORT").and_then(|text| text.parse().ok()) {
        listen.set_port(port);
    }
    let scheme = if get("BRIDGE_TLS_CERT").is_some_and(|file| !file.is_empty()) { "https" } else { "http" };
    format!("{scheme}://{listen}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_are_read_as_systemd_reads_them() {
        let text =
            "# a comment\nBRIDGE_LISTEN=0.0.0.0:9000\n;OPENAI_ORG_ID=x\n BRIDGE_LOG=\"warn,a=b\"\n\nnonsense\nB='c'\n";
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let found = variables(text);
        assert_eq!(found, [pair("BRIDGE_LISTEN", "0.0.0.0:9000"), pair("BRIDGE_LOG", "warn,a=b"), pair("B", "c")]);
        assert_eq!(url(&found), "http://127.0.0.1:9000");
        assert_eq!(url(&[pair("PORT", "81"), pair("BRIDGE_TLS_CERT", "/c")]), "https://127.0.0.1:81");
        assert_eq!(url(&[]), "http://127.0.0.1:8080");
    }

    #[test]
    fn the_socket_that_systemd_holds_is_where_the_api_is() {
        let here = "Listen=10.0.0.5:8080 (Stream)\nActiveState=active\n";
        assert_eq!(listening(here), Some(SocketAddr::from(([10, 0, 0, 5], 8080))));
        for none in [
            "",
            "Listen=10.0.0.5:8080 (Stream)\nActiveState=inactive\n",
            "Listen=/run/x (Stream)\nActiveState=active\n",
        ] {
            assert_eq!(listening(none), None, "{none}");
        }
    }

    #[test]
    fn the_flag_names_a_folder_or_means_the_packages() {
        assert_eq!(folder_of(&"--installed".into()).as_deref(), Some(FOLDER));
        assert_eq!(folder_of(&"--installed=/tmp/x".into()).as_deref(), Some("/tmp/x"));
        assert_eq!((folder_of(&"--installed-x".into()), folder_of(&"--json".into())), (None, None));
    }
}
