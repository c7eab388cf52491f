//! Two bridges on one machine that take over from each other: which of the two this is, and where they meet.

use std::ops::RangeInclusive;
use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::ConfigError;

/// The longest folder: with the name of a socket it must fit into the kernel's address of one, 108 bytes.
const DIR_BYTES_MAX: usize = 90;

/// What the user said of a second instance, by flag or by environment.
#[derive(Args, Clone, Debug)]
pub struct InstanceFlags {
    /// One of two instances on this machine, which take over from each other: an upgrade starts the other one, on the same
    /// listening socket, and cuts no call. Each uses its half of the media ports, `a` the lower
    #[arg(long, env = "BRIDGE_INSTANCE", value_name = "INSTANCE", help_heading = "Two instances")]
    pub instance: Option<Instance>,
    /// Folder of the sockets over which the two speak; whoever may write there may use the API without a token
    #[arg(
        long,
        env = "BRIDGE_HANDOVER_DIR",
        value_name = "DIR",
        default_value = "/run/voice-media-bridge",
        help_heading = "Two instances"
    )]
    pub handover_dir: PathBuf,
}

/// One of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Instance {
    /// Has the lower media ports.
    A,
    /// Has the upper media ports.
    B,
}

impl Instance {
    /// Its name, as the user gives it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::A => "a",
            Self::B => "b",
        }
    }

    /// The other of the two.
    #[must_use]
    pub const fn other(self) -> Self {
        match self {
            Self::A => Self::B,
            Self::B => Self::A,
        }
    }
}

/// Which of two instances this is, and where both have their sockets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pair {
    /// This one.
    pub own: Instance,
    /// The folder of the sockets.
    pub dir: PathBuf,
}

impl Pair {
    /// Where an instance listens for the other.
    pub fn socket(&self, instance: Instance) -> PathBuf {
        self.dir.join(format!("{}.sock", instance.name()))
    }
}

impl InstanceFlags {
    pub(super) fn checked(&self) -> Result<Option<Pair>, ConfigError> {
        let Some(own) = self.instance else { return Ok(None) };
        if !self.handover_dir.is_absolute() || self.handover_dir.as_os_str().len() > DIR_BYTES_MAX {
            let problem = format!("must be an absolute path of at most {DIR_BYTES_MAX} bytes");
            return Err(ConfigError { setting: "BRIDGE_HANDOVER_DIR (--handover-dir)", problem });
        }
        Ok(Some(Pair { own, dir: self.handover_dir.clone() }))
    }

    /// This instance's share of the media ports: half of them, where there are two.
    pub(super) fn share(&self, ports: RangeInclusive<u16>) -> Result<RangeInclusive<u16>, ConfigError> {
        let Some(own) = self.instance else { return Ok(ports) };
        let (start, end) = (*ports.start(), *ports.end());
        if start == end {
            let problem = "must be at least two: each instance (BRIDGE_INSTANCE) has half of them".into();
            return Err(ConfigError { setting: "BRIDGE_MEDIA_PORTS (--media-ports)", problem });
        }
        let middle = start + (end - start).div_ceil(2);
        Ok(match own {
            Instance::A => start..=middle - 1,
            Instance::B => middle..=end,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flags(instance: Option<Instance>) -> InstanceFlags {
        InstanceFlags { instance, handover_dir: "/run/x".into() }
    }

    #[test]
    fn the_two_shares_are_disjoint_and_all_of_the_ports() {
        for (ports, a, b) in [
            (40_000..=41_999, 40_000..=40_999, 41_000..=41_999),
            (10..=12, 10..=10, 11..=12),
            (10..=11, 10..=10, 11..=11),
            (1..=65_535, 1..=32_767, 32_768..=65_535),
        ] {
            assert_eq!(flags(Some(Instance::A)).share(ports.clone()).unwrap(), a);
            assert_eq!(flags(Some(Instance::B)).share(ports.clone()).unwrap(), b);
            assert_eq!(flags(None).share(ports.clone()).unwrap(), ports);
        }
        assert!(flags(Some(Instance::A)).share(7..=7).unwrap_err().setting.starts_with("BRIDGE_MEDIA_PORTS"));
    }

    #[test]
    fn each_finds_the_other_in_the_folder() {
        let pair = flags(Some(Instance::B)).checked().unwrap().unwrap();
        assert_eq!(pair.socket(pair.own.other()), PathBuf::from("/run/x/a.sock"));
        assert_eq!(flags(None).checked().unwrap(), None);
        let nonsense = InstanceFlags { handover_dir: "here".into(), ..flags(Some(Instance::A)) };
        assert!(nonsense.checked().unwrap_err().setting.starts_with("BRIDGE_HANDOVER_DIR"));
    }
}
