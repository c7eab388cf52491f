//! Rules about the machine and this process's place on it.

use std::time::Duration;

use crate::config::IoChoice;
use crate::driver::NoUring;
use crate::driver::inspect::{CALL_BUFFER_BYTES, Clock, Host, Limit};

use super::Check;

/// Descriptors beside those of calls: the API's 2048 connections, rings, mailboxes.
const DESCRIPTORS_BESIDES: u64 = 2_304;

/// Descriptors of a call: its UDP socket and its connection to the model.
const DESCRIPTORS_PER_CALL: u64 = 2;

/// Memory that one loop's ring takes of what may be locked, on kernels that count it there (measured on 6.18: 208 KiB).
const RING_BYTES: u64 = 256 * 1024;

/// Loops beside the workers: control, and the built-in agent.
pub const LOOPS_BESIDES: u16 = 2;

/// How long the goodbye and the end of the process may take after the drain.
const GOODBYE: Duration = Duration::from_secs(10);

/// Where settings of the kernel are kept over a restart.
pub(super) const SYSCTL_FILE: &str = "/etc/sysctl.d/60-voice-media-bridge.conf";

pub(super) fn io_uring(asked: IoChoice, works: &Result<bool, NoUring>, kernel: &str) -> Check {
    let name = "io_uring";
    match (asked, works) {
        (IoChoice::Epoll, Ok(_)) => Check::ok(
            name,
            format!("epoll, as asked for; io_uring works here too and saves most system calls (kernel {kernel})"),
        ),
        (IoChoice::Epoll, Err(_)) => Check::ok(name, format!("epoll, as asked for (kernel {kernel})")),
        (_, Ok(registered)) => {
            let table = if *registered { "registered" } else { "plain" };
            Check::ok(name, format!("works, with {table} descriptors (kernel {kernel})"))
        }
        (IoChoice::Auto, Err(NoUring { why, cure })) => Check::warn(
            name,
            format!("epoll takes its place: {why} (kernel {kernel})"),
            format!("{cure}. epoll carries calls as well, at four system calls a packet instead of a fraction of one"),
        ),
        (IoChoice::Uring, Err(NoUring { why, cure })) => Check::fail(
            name,
            format!("BRIDGE_IO=uring asks for it, and it does not work: {why} (kernel {kernel})"),
            format!("{cure}. BRIDGE_IO=auto does without"),
        ),
    }
}

pub(super) fn locked_memory(workers: u16, rings: Option<&Result<(), NoUring>>, limit: Option<Limit>) -> Option<Check> {
    let name = "locked_memory";
    let loops = workers + LOOPS_BESIDES;
    let limit = limit.map_or_else(String::new, |limit| match limit.soft {
        u64::MAX => " (no limit)".into(),
        bytes => format!(" (limit {} KiB)", bytes / 1024),
    });
    Some(match rings? {
        Ok(()) => Check::ok(name, format!("the rings of {loops} loops fit{limit}")),
        Err(NoUring { why, .. }) => {
            let kib = u64::from(loops) * RING_BYTES / 1024;
            let advice = format!(
                "LimitMEMLOCK={}M in the unit (systemctl edit voice-media-bridge@), or `ulimit -l {kib}` in a shell; \
                 BRIDGE_IO=epoll needs none",
                kib.div_ceil(1024)
            );
            Check::fail(name, format!("the rings of {loops} loops do not fit: {why}{limit}"), advice)
        }
    })
}

pub(super) fn cores(workers: u16, host: &Host) -> Check {
    let (name, cores) = ("cores", host.cores);
    if let Some(quota) = host.cpu_quota.filter(|quota| *quota < f64::from(workers)) {
        let fits = (quota.floor() as u16).max(1);
        return Check::warn(
            name,
            format!(
                "the control group gives {workers} workers the time of {quota} cores: then all of them stand still"
            ),
            format!(
                "CPUQuota={}% in the unit (a container: --cpus {workers}), or BRIDGE_WORKERS={fits}",
                workers * 100
            ),
        );
    }
    if usize::from(workers) > cores {
        return Check::warn(
            name,
            format!("{workers} workers share {cores} cores, and make each other late"),
            format!("BRIDGE_WORKERS={cores}, or let the process run on more (CPUAffinity= in the unit, taskset)"),
        );
    }
    if let Some(why) = &host.pinning_refused {
        return Check::warn(
            name,
            format!("{workers} workers on {cores} cores, which cannot be pinned: {why}"),
            "allow sched_setaffinity (systemd: SystemCallFilter=sched_setaffinity); without it workers move, and frames \
             are late more often",
        );
    }
    Check::ok(name, format!("{workers} workers on {cores} cores, each on its own"))
}

/// The drivers in active mode scale by themselves, whatever the governor is called.
pub(super) fn governor(governors: &[(String, String)]) -> Option<Check> {
    let name = "governor";
    let is_slow = |(governor, driver): &&(String, String)| {
        governor == "powersave" && !driver.starts_with("intel_pstate") && !driver.starts_with("amd-pstate-epp")
    };
    if let Some((governor, driver)) = governors.iter().find(is_slow) {
        return Some(Check::warn(
            name,
            format!("{governor} ({driver}) keeps cores at their lowest frequency"),
            "cpupower frequency-set -g performance (package linux-cpupower), or schedutil where power matters",
        ));
    }
    let (governor, driver) = governors.first()?;
    Some(Check::ok(name, format!("{governor} ({driver})")))
}

pub(super) fn descriptors(calls_max: u32, limit: Option<Limit>) -> Option<Check> {
    let name = "descriptors";
    let limit = limit?.hard;
    let needed = u64::from(calls_max) * DESCRIPTORS_PER_CALL + DESCRIPTORS_BESIDES;
    if limit >= needed {
        return Some(Check::ok(name, format!("{calls_max} calls need {needed} of at most {limit}")));
    }
    let fits = limit.saturating_sub(DESCRIPTORS_BESIDES) / DESCRIPTORS_PER_CALL;
    let wanted = needed.next_power_of_two();
    let advice = format!("LimitNOFILE={wanted} in the unit, or `ulimit -Hn {wanted}` as root before the start");
    let found = format!("{calls_max} calls need {needed}, and at most {limit} may be open: enough for {fits} calls");
    Some(match fits {
        0 => Check::fail(name, found, advice),
        _ => Check::warn(name, found, format!("{advice}; or BRIDGE_MAX_CALLS={fits}")),
    })
}

pub(super) fn udp_buffers(limits: [Option<u64>; 2]) -> Option<Check> {
    let name = "udp_buffers";
    let names = ["net.core.rmem_max", "net.core.wmem_max"];
    let known = names.iter().zip(limits).zip(CALL_BUFFER_BYTES);
    let all: Vec<(&str, u64, u64)> =
        known.filter_map(|((name, limit), asked)| Some((*name, limit?, asked as u64))).collect();
    let low = all.iter().find(|(_, limit, asked)| limit < asked);
    if let Some((setting, limit, asked)) = low {
        return Some(Check::warn(
            name,
            format!("{setting} is {limit}, and each call asks for {asked}: bursts are lost when a core stalls"),
            format!("sysctl -w {setting}=212992 (and the line in {SYSCTL_FILE})"),
        ));
    }
    let [receive, send] = CALL_BUFFER_BYTES.map(|bytes| bytes / 1024);
    (!all.is_empty())
        .then(|| Check::ok(name, format!("a call's {receive} KiB to receive and {send} KiB to send are allowed")))
}

pub(super) fn clock(clock: Option<Clock>) -> Option<Check> {
    let name = "clock";
    Some(match clock? {
        Clock::Synchronised => Check::ok(name, "synchronised"),
        Clock::Adrift => Check::warn(
            name,
            "not synchronised: certificates are refused and logs mislead once it is far off",
            "timedatectl set-ntp true (package systemd-timesyncd or chrony); UDP 123 must get out",
        ),
    })
}

pub(super) fn drain(time_max: Duration, stop_timeout: Option<Duration>) -> Option<Check> {
    let (name, stop) = ("drain", stop_timeout?);
    let (drain_sec, stop_sec) = (time_max.as_secs(), stop.as_secs());
    Some(if stop >= time_max + GOODBYE {
        Check::ok(name, format!("calls may go on for {drain_sec} s, and systemd waits for {stop_sec} s"))
    } else {
        Check::warn(
            name,
            format!(
                "calls may go on for {drain_sec} s, and systemd kills the process after {stop_sec} s: they are cut off"
            ),
            format!(
                "TimeoutStopSec={} in the unit (systemctl edit voice-media-bridge@), or BRIDGE_DRAIN_SEC={}",
                drain_sec + 3 * GOODBYE.as_secs(),
                stop_sec.saturating_sub(GOODBYE.as_secs())
            ),
        )
    })
}
