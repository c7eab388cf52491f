//! What the process asks of its host: processors, limits, its address, entropy, the time.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::sys::resource::{Resource, UsageWho, getrlimit, getrusage, setrlimit};
use nix::time::{ClockId, clock_gettime};
use nix::unistd::Pid;

/// The processors this process may run on, in order. Never empty.
pub fn cores() -> Vec<usize> {
    let allowed = sched_getaffinity(Pid::from_raw(0)).map(|set| {
        let cores: Vec<usize> = (0..CpuSet::count()).filter(|core| set.is_set(*core).unwrap_or(false)).collect();
        cores
    });
    allowed.ok().filter(|cores| !cores.is_empty()).unwrap_or_else(|| vec![0])
}

/// Keeps the calling thread on one processor.
pub fn pin_to(core: usize) -> io::Result<()> {
    let mut set = CpuSet::new();
    set.set(core)?;
    Ok(sched_setaffinity(Pid::from_raw(0), &set)?)
}

/// Lets the calling thread go before threads of the usual priority, where the host allows it (RLIMIT_NICE): the least
/// that makes it the next to run when it wakes on a core that a worker keeps busy.
pub(super) fn go_first() -> io::Result<()> {
    const NICE: i32 = -10;
    Ok(rustix::process::setpriority_process(None, NICE)?)
}

/// Lets the calling thread's sleeps end when they should, and not up to 50 µs later for the sake of fewer interrupts.
pub(super) fn wake_on_time() -> io::Result<()> {
    Ok(nix::sys::prctl::set_timerslack(1)?)
}

/// Time that the calling thread has run, in nanoseconds: [`crate::io::Stopwatch`] for work without waiting.
pub fn thread_time() -> u64 {
    nanoseconds(ClockId::CLOCK_THREAD_CPUTIME_ID)
}

fn nanoseconds(clock: ClockId) -> u64 {
    let time = clock_gettime(clock).expect("these clocks exist on every Linux");
    Duration::from(time).as_nanos() as u64
}

/// Time that the calling thread has spent in the kernel, in nanoseconds; as exact as the kernel's own accounting.
pub fn thread_kernel_time() -> u64 {
    let usage = getrusage(UsageWho::RUSAGE_THREAD).expect("a thread may ask about itself");
    let time = usage.system_time();
    time.tv_sec() as u64 * 1_000_000_000 + time.tv_usec() as u64 * 1_000
}

/// Raises the limit on open descriptors as far as the host allows, and returns it: each call needs two.
pub fn raise_descriptor_limit() -> io::Result<u64> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    if soft < hard {
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    }
    Ok(hard)
}

/// The limit on open descriptors.
pub(super) fn descriptor_limit() -> io::Result<u64> {
    Ok(getrlimit(Resource::RLIMIT_NOFILE)?.0)
}

/// The local address that the default route uses, IPv4 first; `None` when there is no route. A datagram socket is
/// connected towards an address for documentation (RFC 5737, RFC 3849), which sends nothing.
pub fn default_route_ip() -> Option<IpAddr> {
    let beyond = |any: IpAddr, far: IpAddr| {
        let socket = UdpSocket::bind(SocketAddr::new(any, 0)).ok()?;
        socket.connect(SocketAddr::new(far, 9)).ok()?;
        let ip = socket.local_addr().ok()?.ip();
        (!ip.is_unspecified() && !ip.is_loopback()).then_some(ip)
    };
    beyond(Ipv4Addr::UNSPECIFIED.into(), Ipv4Addr::new(192, 0, 2, 1).into())
        .or_else(|| beyond(Ipv6Addr::UNSPECIFIED.into(), Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1).into()))
}

/// Whether an environment variable is set to nothing.
pub fn variable_is_empty(name: &str) -> bool {
    std::env::var_os(name).is_some_and(|value| value.is_empty())
}

/// Fills a buffer from the operating system's source: [`crate::io::Entropy`] in production.
pub fn entropy(buffer: &mut [u8]) {
    aws_lc_rs::rand::fill(buffer).expect("the operating system's source of entropy does not fail once it is up");
}

/// The time, on the clock that machines are given.
pub fn now() -> Instant {
    Instant::now()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_can_be_pinned_to_each_allowed_core() {
        let allowed = cores();
        std::thread::spawn(move || {
            for core in allowed {
                pin_to(core).unwrap();
                assert_eq!(cores(), [core]);
            }
        })
        .join()
        .unwrap();
    }

    #[test]
    fn a_thread_goes_first_without_taking_others_along() {
        let before = rustix::process::getpriority_process(None).unwrap();
        let raised = std::thread::spawn(|| go_first().map(|()| rustix::process::getpriority_process(None).unwrap()));
        match raised.join().unwrap() {
            Ok(nice) => assert_eq!(nice, -10),
            Err(error) => assert!(matches!(error.kind(), io::ErrorKind::PermissionDenied), "{error}"),
        }
        assert_eq!(rustix::process::getpriority_process(None).unwrap(), before);
    }

    #[test]
    fn the_descriptor_limit_ends_at_the_hard_one() {
        let limit = raise_descriptor_limit().unwrap();
        assert_eq!(descriptor_limit().unwrap(), limit);
    }

    #[test]
    fn entropy_differs_from_call_to_call() {
        let fill: crate::io::Entropy = entropy;
        let (mut a, mut b) = ([0; 32], [0; 32]);
        fill(&mut a);
        fill(&mut b);
        assert_ne!(a, b);
    }

    #[test]
    fn the_default_route_is_no_loopback() {
        assert!(default_route_ip().is_none_or(|ip| !ip.is_loopback() && !ip.is_unspecified()));
    }
}
