//! The manual page, made of what clap knows: one page for the program and all its commands.
//!
//! What `--help` says is said here, in the same words; what it does not say (files, signals) stands below. A test keeps the
//! page in the repository current. This file must not know what a flag means.

use std::io;

use clap::Command;
use clap_mangen::Man;

/// What no flag tells.
const REST: &str = r#".SH SIGNALS
.TP
SIGTERM, SIGINT
Drain: no new calls; those in progress go on for a bounded time, then hear a goodbye. A second one ends at once.
.TP
SIGHUP
Read certificates and tokens again. No call is touched.
.SH FILES
.TP
/etc/voice\-media\-bridge/voice\-media\-bridge.env
Settings of the service, a variable a line. Every option of \fBserve\fR has one.
.TP
/etc/voice\-media\-bridge/credentials/
Secrets of the service, one a file: \fIapi\-token\fR, \fIopenai\-api\-key\fR, \fIevents\-token\fR. Only root can read them.
.TP
/usr/lib/sysctl.d/60\-voice\-media\-bridge.conf
What the service wants of the kernel.
.SH "SEE ALSO"
\fBvoice\-media\-bridge\-upgrade\fR(8), \fBsystemctl\fR(1), \fBjournalctl\fR(1)
"#;

/// What every part that clap makes begins with.
const PREAMBLE: &str = ".ie \\n(.g .ds Aq \\(aq\n.el .ds Aq '\n";

/// The page in roff.
pub(crate) fn page(mut command: Command) -> io::Result<String> {
    command = command.subcommand_value_name("command").disable_help_subcommand(true);
    command.build();
    let mut page = Vec::new();
    let man = Man::new(command.clone());
    man.render_name_section(&mut page)?;
    man.render_synopsis_section(&mut page)?;
    man.render_description_section(&mut page)?;
    man.render_options_section(&mut page)?;
    let mut page = String::from_utf8(page).map_err(io::Error::other)?;
    if let Some(text) = command.get_after_help() {
        page += &literal(&text.to_string());
    }
    page += ".SH COMMANDS\n";
    for subcommand in command.get_subcommands().filter(|subcommand| !subcommand.is_hide_set()) {
        page += &section(subcommand, &command)?;
    }
    let title = format!(".TH VOICE\\-MEDIA\\-BRIDGE 1 \"\" \"voice-media-bridge {}\"\n", env!("CARGO_PKG_VERSION"));
    // One preamble is enough; the rest is what linters of pages dislike.
    let page = page.replace(PREAMBLE, "").replace(" \n", "\n").replace(".br\n\n.br\n", ".sp\n");
    Ok(format!("{PREAMBLE}{title}{page}{REST}"))
}

/// A command as a part of the page.
fn section(command: &Command, root: &Command) -> io::Result<String> {
    let name = command.get_bin_name().unwrap_or_else(|| command.get_name());
    let mut part = Vec::new();
    let man = Man::new(command.clone());
    man.render_description_section(&mut part)?;
    let repeats = command.get_arguments().all(|arg| root.get_arguments().any(|known| known.get_id() == arg.get_id()));
    if !repeats {
        man.render_options_section(&mut part)?;
    }
    let mut part = String::from_utf8(part).map_err(io::Error::other)?.replace(".SH DESCRIPTION\n", "");
    part = part.replace(".SH OPTIONS\n", "").replace(".SH ", ".PP\n.I ");
    if repeats {
        part += ".PP\nTakes the options above.\n";
    }
    if let Some(text) = command.get_after_help() {
        part += &literal(&text.to_string());
    }
    Ok(format!(".SS \"{}\"\n{part}", escaped(name)))
}

/// Text whose lines stay as they are.
fn literal(text: &str) -> String {
    let lines: String = text.lines().map(|line| format!("{}\n", escaped(line))).collect();
    format!(".PP\n.nf\n{lines}.fi\n")
}

fn escaped(text: &str) -> String {
    let text = text.replace('\\', "\\e").replace('-', "\\-");
    if text.starts_with(['.', '\'']) { format!("\\&{text}") } else { text }
}
