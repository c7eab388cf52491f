//! What this process uses, as the kernel counts it. Reading takes some ten system calls: for whoever asks, on a thread
//! that no packet waits for.

use std::fs;
use std::time::{SystemTime, UNIX_EPOCH};

use nix::sys::resource::{UsageWho, getrusage};

use super::system;

/// What the process uses now. What the host does not tell is `None`.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ProcessUsage {
    /// Processor time of all threads, user and system.
    pub cpu_sec: Option<f64>,
    /// Memory that is in RAM.
    pub resident_bytes: Option<u64>,
    /// Addresses in use.
    pub virtual_bytes: Option<u64>,
    /// Descriptors open.
    pub open_fds: Option<u64>,
    /// The limit on them.
    pub max_fds: Option<u64>,
}

/// Asks the kernel.
pub fn usage() -> ProcessUsage {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    ProcessUsage {
        cpu_sec: getrusage(UsageWho::RUSAGE_SELF).ok().map(|usage| {
            let sec = |time: nix::sys::time::TimeVal| time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6;
            sec(usage.user_time()) + sec(usage.system_time())
        }),
        resident_bytes: bytes_of(&status, "VmRSS:"),
        virtual_bytes: bytes_of(&status, "VmSize:"),
        // The folder is open while it is read.
        open_fds: fs::read_dir("/proc/self/fd").ok().map(|open| (open.count() as u64).saturating_sub(1)),
        max_fds: system::descriptor_limit().ok(),
    }
}

/// A line such as `VmRSS:     1234 kB`.
fn bytes_of(status: &str, name: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    line.trim().strip_suffix(" kB")?.parse::<u64>().ok().map(|kb| kb * 1024)
}

/// Seconds since 1970.
pub fn unix_sec() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_tells_what_this_process_uses() {
        let before = usage();
        let file = fs::File::open("/proc/self/stat").unwrap();
        let used = usage();
        assert!(used.cpu_sec.unwrap() >= before.cpu_sec.unwrap());
        let (resident, virt) = (used.resident_bytes.unwrap(), used.virtual_bytes.unwrap());
        assert!(resident > 1 << 20 && virt > resident, "{used:?}");
        assert!((4..=used.max_fds.unwrap()).contains(&used.open_fds.unwrap()), "{used:?}");
        drop(file);
    }

    #[test]
    fn a_status_without_the_line_is_no_number() {
        assert_eq!(bytes_of("Name:\tx\nVmRSS:\t    12 kB\n", "VmRSS:"), Some(12 * 1024));
        assert_eq!(bytes_of("Name:\tx\n", "VmRSS:"), None);
    }
}
