//! The flags of `voice-media-bridge doctor`, but for those that name the bridge.

use std::net::IpAddr;

use clap::Args;

/// What was typed.
#[derive(Args, Clone, Debug)]
pub struct DoctorFlags {
    /// Take the settings and credentials of the installed service, from this folder (default: /etc/voice-media-bridge)
    /// instead of this shell's variables; as root, since credentials are root's
    #[arg(long, value_name = "FOLDER", num_args = 0..=1, require_equals = true)]
    pub installed: Option<Option<String>>,
    /// Address that the caller listens on and offers; the bridge must reach it. Default: the one that the bridge
    /// advertises where that is this machine's, else that of the default route
    #[arg(long, value_name = "IP")]
    pub relay_ip: Option<IpAddr>,
    /// How long media is watched, in seconds
    #[arg(long, value_name = "SEC", default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=600))]
    pub seconds: u64,
    /// Where no bridge listens, do not start one for the call
    #[arg(long)]
    pub no_start: bool,
    /// Print the steps as JSON when all is over
    #[arg(long)]
    pub json: bool,
    /// What the bridge advertises, where it was told so
    #[arg(long, env = "BRIDGE_MEDIA_IP", value_name = "IP", hide = true)]
    pub media_ip: Option<IpAddr>,
    /// The bridge's media ports: the caller keeps off them
    #[arg(long, env = "BRIDGE_MEDIA_PORTS", value_name = "FIRST-LAST", default_value = "40000-41999", hide = true)]
    pub media_ports: String,
}
