//! HAProxy's agent-check as it is on the wire, and as HAProxy itself takes it.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::pump::Pump;
use crate::relay::script::Script;
use crate::server_calls::{PATIENCE, apply, heard, poll_until, post, start_with};
use crate::support::process::Process;
use crate::support::server::{Server, free_address};
use crate::voice::silence;

const HAPROXY: &str = "/usr/sbin/haproxy";

/// A bridge for four calls whose load on this busy machine counts for nothing.
fn start(agent: SocketAddr, settings: &[(&str, &str)]) -> Server {
    let agent = agent.to_string();
    let own = [
        ("BRIDGE_AGENT", "builtin"),
        ("BRIDGE_AGENT_CHECK_LISTEN", agent.as_str()),
        ("BRIDGE_MAX_CALLS", "4"),
        ("BRIDGE_ADMIT_BUSY_PERCENT", "100"),
    ];
    start_with(&[&own, settings].concat())
}

/// What is said to somebody who connects and sends this.
fn asked(agent: SocketAddr, send: &[u8]) -> String {
    let mut stream = TcpStream::connect(agent).expect("the agent-check listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a socket takes a timeout");
    stream.write_all(send).expect("room for a line");
    let mut line = String::new();
    stream.read_to_string(&mut line).expect("a line, and then the end");
    line
}

fn one_line_and_the_end(io: &str, media_ports: &str) {
    let agent = free_address();
    let settings = [("BRIDGE_IO", io), ("BRIDGE_MEDIA_PORTS", media_ports), ("BRIDGE_DRAIN_SEC", "60")];
    let server = start(agent, &settings);
    let pump = Pump::start(71).expect("a relay");
    assert_eq!(asked(agent, b""), "ready up 100%\n");
    assert_eq!(asked(agent, b"GET / HTTP/1.1\r\n\r\n"), "ready up 100%\n", "whatever is sent");
    let (key, answer) = post(&server, &pump, "wacid.weighs", Script::repeated(silence(Duration::from_secs(1))));
    apply(&pump, key, &answer);
    heard(&pump, key, 10);
    assert_eq!(asked(agent, b""), "ready up 75%\n");
    // Whoever never reads and never closes holds nothing but their own socket.
    let idle: Vec<_> = (0..200).map(|_| TcpStream::connect(agent).expect("accepted")).collect();
    assert_eq!(asked(agent, b""), "ready up 75%\n");
    server.signal();
    poll_until("the drain", || Some(asked(agent, b"")).filter(|line| line == "drain\n").ok_or("not yet".to_owned()));
    assert_eq!(server.http().delete("/api/sessions/wacid.weighs").status, 200);
    let (status, log) = server.ended();
    assert_eq!(status.code(), Some(0), "{log}");
    drop(idle);
}

#[test]
fn whoever_connects_gets_one_line_and_the_end_on_uring() {
    one_line_and_the_end("uring", "21850-21859");
}

#[test]
fn whoever_connects_gets_one_line_and_the_end_on_epoll() {
    one_line_and_the_end("epoll", "21860-21869");
}

#[test]
fn an_address_that_is_taken_is_named_with_its_setting() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let agent = taken.local_addr().expect("bound").to_string();
    let (code, output) = crate::server_process::run(
        &[],
        &[("BRIDGE_LISTEN", "127.0.0.1:0"), ("BRIDGE_AGENT", "builtin"), ("BRIDGE_AGENT_CHECK_LISTEN", &agent)],
    );
    assert_eq!(code, Some(1), "{output}");
    assert!(output.contains(&agent) && output.contains("BRIDGE_AGENT_CHECK_LISTEN"), "{output}");
}

/// HAProxy in front of one server, with a socket to ask it.
struct Balancer {
    folder: PathBuf,
    _process: Process,
}

impl Balancer {
    fn start(agent: SocketAddr) -> Self {
        let folder = std::env::temp_dir().join(format!("agent-check-{}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a folder of our own");
        let (socket, front) = (folder.join("stats"), free_address());
        let config = format!(
            "global\n  stats socket {} mode 600 level admin\n\
             defaults\n  mode http\n  timeout connect 1s\n  timeout client 5s\n  timeout server 5s\n\
             frontend calls\n  bind {front}\n  default_backend bridges\n\
             backend bridges\n  server one 127.0.0.1:1 weight 100 check inter 100ms agent-check agent-port {} \
             agent-inter 100ms\n",
            socket.display(),
            agent.port()
        );
        let file = folder.join("haproxy.cfg");
        std::fs::write(&file, config).expect("a folder of our own");
        let process = Process::start(Command::new(HAPROXY).args(["-db", "-f"]).arg(&file));
        let balancer = Self { folder, _process: process };
        poll_until("HAProxy", || UnixStream::connect(&socket).map(drop).map_err(|error| error.to_string()));
        balancer
    }

    fn say(&self, words: &str) -> String {
        let mut socket = UnixStream::connect(self.folder.join("stats")).expect("HAProxy runs");
        socket.write_all(format!("{words}\n").as_bytes()).expect("HAProxy reads");
        let mut answer = String::new();
        socket.read_to_string(&mut answer).expect("HAProxy answers");
        answer
    }

    /// Sends requests to this server from now on.
    fn points_to(&self, server: &Server) {
        self.say(&format!("set server bridges/one addr 127.0.0.1 port {}", server.address().port()));
    }

    /// The server's status and weight.
    fn state(&self) -> (String, String) {
        let stat = self.say("show stat");
        let line = stat.lines().find(|line| line.starts_with("bridges,one,")).expect("the server");
        let fields: Vec<&str> = line.split(',').collect();
        (fields[17].to_owned(), fields[18].to_owned())
    }

    #[track_caller]
    fn becomes(&self, status: &str, weight: &str) {
        poll_until(&format!("{status} {weight}"), || {
            let (is, weighs) = self.state();
            if is == status && weighs == weight { Ok(()) } else { Err(format!("{is} {weighs}")) }
        });
    }
}

impl Drop for Balancer {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

#[test]
fn haproxy_weighs_a_bridge_by_what_is_free_drains_it_and_takes_it_back_after_a_restart() {
    if !Path::new(HAPROXY).exists() {
        return println!("not shown: {HAPROXY} is not installed");
    }
    let agent = free_address();
    let settings = [("BRIDGE_MEDIA_PORTS", "21870-21879"), ("BRIDGE_DRAIN_SEC", "60")];
    let server = start(agent, &settings);
    let balancer = Balancer::start(agent);
    balancer.points_to(&server);
    balancer.becomes("UP", "100");
    let pump = Pump::start(72).expect("a relay");
    let (key, answer) = post(&server, &pump, "wacid.weighs", Script::repeated(silence(Duration::from_secs(1))));
    apply(&pump, key, &answer);
    heard(&pump, key, 10);
    balancer.becomes("UP", "75");
    server.signal();
    balancer.becomes("DRAIN (agent)", "75");
    assert_eq!(server.http().delete("/api/sessions/wacid.weighs").status, 200);
    let (status, log) = server.ended();
    assert_eq!(status.code(), Some(0), "{log}");
    let server = start(agent, &settings);
    balancer.points_to(&server);
    balancer.becomes("UP", "100");
}
