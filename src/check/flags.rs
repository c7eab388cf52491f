//! The flags of `voice-media-bridge check-config`.

use clap::Args;

use crate::config::Flags;

/// What was typed.
#[derive(Args, Clone, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "switches of a command line")]
pub struct CheckFlags {
    /// The bridge's own.
    #[command(flatten)]
    pub settings: Flags,
    /// Take the settings and credentials of the installed service, from this folder (default: /etc/voice-media-bridge)
    /// instead of this shell's variables; as root, since credentials are root's
    #[arg(long, value_name = "FOLDER", num_args = 0..=1, require_equals = true, help_heading = "Checks")]
    pub installed: Option<Option<String>>,
    /// Open a session at the model with the key, and close it: shows whether the key is taken. Ask Meta for each of
    /// WhatsApp's numbers, which changes nothing: shows whether its token is taken
    #[arg(long, help_heading = "Checks", conflicts_with = "offline")]
    pub deep: bool,
    /// Look up no name and connect to nothing beyond this machine
    #[arg(long, help_heading = "Checks")]
    pub offline: bool,
    /// Fail on warnings too
    #[arg(long, help_heading = "Checks")]
    pub strict: bool,
    /// Print settings and checks as JSON
    #[arg(long, help_heading = "Checks")]
    pub json: bool,
}
