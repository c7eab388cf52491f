//! The machine: its kernel's settings, this process's limits, processors, the clock.

use std::fs;
use std::io::ErrorKind;
use std::net::{IpAddr, UdpSocket};
use std::ops::RangeInclusive;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::resource::{Resource, getrlimit};
use nix::unistd::{AccessFlags, access};

use crate::driver::{probe, system};

/// How long systemd's time service may take to answer; where it does not run it has to be started first.
const CLOCK_TIME_MAX: Duration = Duration::from_secs(3);

/// Between two looks at whether it has.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// A limit of this process: what holds, and what it may be raised to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// What holds.
    pub soft: u64,
    /// What it may be raised to without privilege.
    pub hard: u64,
}

/// Whether the clock follows others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clock {
    /// It does.
    Synchronised,
    /// It does not.
    Adrift,
}

/// What was seen.
#[derive(Clone, Debug, PartialEq)]
pub struct Host {
    /// The kernel's release.
    pub kernel: String,
    /// Open descriptors.
    pub descriptors: Option<Limit>,
    /// Memory that may be locked, bytes.
    pub locked_memory: Option<Limit>,
    /// `net.core.rmem_max` and `net.core.wmem_max`, bytes.
    pub buffer_bytes_max: [Option<u64>; 2],
    /// `net.ipv4.ip_local_port_range`: where the kernel takes ports for others from.
    pub ephemeral_ports: Option<RangeInclusive<u16>>,
    /// `net.ipv4.ip_local_reserved_ports`: what it leaves alone.
    pub reserved_ports: Vec<RangeInclusive<u16>>,
    /// Processors that this process may run on.
    pub cores: usize,
    /// Why a thread cannot be kept on one of them.
    pub pinning_refused: Option<String>,
    /// Processors' worth of time that the control group may use.
    pub cpu_quota: Option<f64>,
    /// How frequency is governed: each kind once, with its driver.
    pub governors: Vec<(String, String)>,
    /// Whether the clock follows others.
    pub clock: Option<Clock>,
    /// How long systemd waits for the service to stop; `None` also where it waits for ever.
    pub stop_timeout: Option<Duration>,
    /// The address that the default route uses.
    pub default_route_ip: Option<IpAddr>,
}

/// Looks.
pub fn host() -> Host {
    let limit = |resource| getrlimit(resource).ok().map(|(soft, hard)| Limit { soft, hard });
    let number = |name| read(name)?.trim().parse().ok();
    Host {
        kernel: probe::release(),
        descriptors: limit(Resource::RLIMIT_NOFILE),
        locked_memory: limit(Resource::RLIMIT_MEMLOCK),
        buffer_bytes_max: ["/proc/sys/net/core/rmem_max", "/proc/sys/net/core/wmem_max"].map(number),
        ephemeral_ports: read("/proc/sys/net/ipv4/ip_local_port_range").and_then(|text| ephemeral(&text)),
        reserved_ports: read("/proc/sys/net/ipv4/ip_local_reserved_ports")
            .map(|text| ranges(&text))
            .unwrap_or_default(),
        cores: system::cores().len(),
        pinning_refused: pinning_refused(),
        cpu_quota: cpu_quota(),
        governors: governors(),
        clock: clock(),
        stop_timeout: stop_timeout(),
        default_route_ip: system::default_route_ip(),
    }
}

/// Whether this is an address of this host.
pub fn is_local_address(ip: IpAddr) -> bool {
    UdpSocket::bind((ip, 0)).is_ok()
}

/// A file's permissions.
pub fn mode(path: &Path) -> Option<u32> {
    Some(fs::metadata(path).ok()?.permissions().mode())
}

/// A folder that is to be written to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Folder {
    /// It can.
    Writable,
    /// It is not there, and can be made.
    Missing,
    /// It cannot; why.
    Refused(String),
}

/// Whether this user could write there.
pub fn folder(path: &Path) -> Folder {
    let parts = AccessFlags::W_OK | AccessFlags::X_OK;
    // The nearest that is there decides.
    for (depth, place) in path.ancestors().enumerate() {
        match fs::metadata(place) {
            Ok(found) if !found.is_dir() => return Folder::Refused(format!("{} is no folder", place.display())),
            Ok(_) => {
                return match access(place, parts) {
                    Ok(()) if depth == 0 => Folder::Writable,
                    Ok(()) => Folder::Missing,
                    Err(error) => Folder::Refused(format!("{}: {}", place.display(), error.desc())),
                };
            }
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Folder::Refused(error.to_string()),
        }
    }
    Folder::Refused("no part of it is there".into())
}

/// Whether root alone can read a file, which a service of another user then cannot.
pub fn is_roots_alone(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|file| file.uid() == 0 && file.mode() & 0o044 == 0)
}

fn read(path: impl AsRef<Path>) -> Option<String> {
    fs::read_to_string(path).ok()
}

/// Two numbers, such as `32768 60999`.
fn ephemeral(text: &str) -> Option<RangeInclusive<u16>> {
    let mut numbers = text.split_whitespace().map(str::parse);
    Some(numbers.next()?.ok()?..=numbers.next()?.ok()?)
}

/// `8080,40000-41999`.
fn ranges(text: &str) -> Vec<RangeInclusive<u16>> {
    let range = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        Some(first.trim().parse().ok()?..=last.trim().parse().ok()?)
    };
    text.split(',').filter_map(range).collect()
}

/// Tries it on a thread that ends at once.
fn pinning_refused() -> Option<String> {
    let core = system::cores().into_iter().next()?;
    let tried = thread::spawn(move || system::pin_to(core)).join().expect("pinning does not panic");
    tried.err().map(|error| error.to_string())
}

/// The tightest `cpu.max` between this process's group and the root.
fn cpu_quota() -> Option<f64> {
    let own = read("/proc/self/cgroup")?;
    let path = own.lines().find_map(|line| line.strip_prefix("0::/"))?.to_owned();
    let groups = Path::new(&path).ancestors().map(|group| Path::new("/sys/fs/cgroup").join(group).join("cpu.max"));
    groups.filter_map(|file| quota_of(&read(file)?)).min_by(f64::total_cmp)
}

/// `150000 100000` is one and a half processors, `max 100000` is no limit.
fn quota_of(text: &str) -> Option<f64> {
    let (quota, period) = text.trim().split_once(' ')?;
    Some(quota.parse::<f64>().ok()? / period.parse::<f64>().ok()?)
}

fn governors() -> Vec<(String, String)> {
    let mut found = Vec::new();
    for core in system::cores() {
        let folder = format!("/sys/devices/system/cpu/cpu{core}/cpufreq");
        let word = |name| read(Path::new(&folder).join(name)).map(|text| text.trim().to_owned());
        if let Some(governor) = word("scaling_governor") {
            let kind = (governor, word("scaling_driver").unwrap_or_default());
            if !found.contains(&kind) {
                found.push(kind);
            }
        }
    }
    found
}

/// Asks whoever keeps the time: systemd's own service leaves a file, and the kernel knows of all the others.
fn clock() -> Option<Clock> {
    if Path::new("/run/systemd/timesync/synchronized").exists() {
        return Some(Clock::Synchronised);
    }
    match said(&["timedatectl", "show", "--property=NTPSynchronized", "--value"])?.as_str() {
        "yes" => Some(Clock::Synchronised),
        "no" => Some(Clock::Adrift),
        _ => None,
    }
}

/// Of the unit that runs this process, after which its group is named, or else of the one that the package installs.
fn stop_timeout() -> Option<Duration> {
    let group = read("/proc/self/cgroup")?;
    // Not any unit: a shell that cron or a console runs is part of another's service.
    let is_ours = |unit: &&str| unit.starts_with("voice-media-bridge") && unit.ends_with(".service");
    let unit = group.trim().rsplit('/').next().filter(is_ours).unwrap_or("voice-media-bridge.service");
    let shown = said(&["systemctl", "show", unit, "--property=LoadState,TimeoutStopUSec"])?;
    let property = |name: &str| shown.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
    property("LoadState").filter(|state| *state == "loaded")?;
    span_of(property("TimeoutStopUSec")?)
}

/// A span as systemd writes it, such as `10min 30s`; `None` when it never ends.
fn span_of(text: &str) -> Option<Duration> {
    let part = |part: &str| {
        let unit_at = part.find(|c: char| !c.is_ascii_digit())?;
        let (number, unit) = part.split_at(unit_at);
        let number: u64 = number.parse().ok()?;
        let unit = match unit {
            "us" => Duration::from_micros(1),
            "ms" => Duration::from_millis(1),
            "s" => Duration::from_secs(1),
            "min" => Duration::from_secs(60),
            "h" => Duration::from_secs(3_600),
            "d" => Duration::from_secs(86_400),
            _ => return None,
        };
        unit.checked_mul(u32::try_from(number).ok()?)
    };
    let parts: Option<Vec<Duration>> = text.split_whitespace().map(part).collect();
    parts.filter(|parts| !parts.is_empty()).map(|parts| parts.iter().sum())
}

/// What a program of the host prints, if it is there and answers in time.
fn said(words: &[&str]) -> Option<String> {
    let mut command = Command::new(words[0]);
    command.args(&words[1..]).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().ok()?;
    let end = Instant::now() + CLOCK_TIME_MAX;
    while child.try_wait().ok()?.is_none() {
        if Instant::now() >= end {
            let _ = child.kill();
            let _ = child.wait();
            return None;
        }
        thread::sleep(LOOK_AGAIN);
    }
    // It has ended, and a word fits into the pipe.
    let output = child.wait_with_output().ok()?;
    Some(String::from_utf8_lossy(&output.stdout).trim().to_owned()).filter(|text| !text.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_host_is_looked_at() {
        let seen = host();
        assert!(seen.cores >= 1 && !seen.kernel.is_empty());
        assert_eq!(seen.pinning_refused, None);
        assert!(seen.descriptors.is_some_and(|limit| limit.soft <= limit.hard), "{seen:?}");
        assert!(is_local_address([127, 0, 0, 1].into()) && !is_local_address([198, 41, 0, 4].into()));
    }

    #[test]
    fn a_folder_is_writable_or_can_be_made_or_it_is_said_why_not() {
        let place = std::env::temp_dir().join(format!("voice-media-bridge-folder-{}", std::process::id()));
        let _ = fs::remove_dir_all(&place);
        assert_eq!(folder(&place.join("a/b")), Folder::Missing);
        fs::create_dir(&place).unwrap();
        assert_eq!(folder(&place), Folder::Writable);
        fs::write(place.join("file"), "").unwrap();
        for path in [place.join("file"), place.join("file/below")] {
            assert!(matches!(folder(&path), Folder::Refused(_)), "{}", path.display());
        }
        fs::remove_dir_all(&place).unwrap();
    }

    #[test]
    fn the_kernels_texts_are_read() {
        assert_eq!(ephemeral("32768\t60999\n"), Some(32_768..=60_999));
        assert_eq!(ephemeral(""), None);
        assert_eq!(ranges("8080,40000-41999\n"), [8_080..=8_080, 40_000..=41_999]);
        assert_eq!(ranges("\n"), []);
        assert_eq!((quota_of("150000 100000\n"), quota_of("max 100000\n"), quota_of("")), (Some(1.5), None, None));
    }

    #[test]
    fn spans_are_read_as_systemd_writes_them() {
        let seconds = |text| span_of(text).map(|span| span.as_secs_f64());
        assert_eq!((seconds("1min 30s"), seconds("10min"), seconds("500ms")), (Some(90.0), Some(600.0), Some(0.5)));
        assert_eq!((seconds("infinity"), seconds("")), (None, None));
    }

    #[test]
    fn a_program_that_does_not_answer_is_not_waited_for() {
        assert_eq!(said(&["sh", "-c", "echo yes"]).as_deref(), Some("yes"));
        assert_eq!(said(&["/nowhere/to/be/found"]), None);
        assert_eq!(said(&["sh", "-c", "exec sleep 600"]), None);
    }
}
