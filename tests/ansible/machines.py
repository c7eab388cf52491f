"""A fleet made from nothing, changed, upgraded under load, and removed: two bridges and a balancer that systemd-nspawn boots.

One bridge is installed from the package, the other from the bare binary. Nothing of this reaches another network: the machines
and what asks them are in a network namespace of its own, and what they would fetch is in their image already.
"""

import contextlib
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import tempfile
import time

sys.path.append(str(pathlib.Path(__file__).resolve().parents[1] / "fleet"))

from calls import call_id, offer  # noqa: E402  (the fleet suite's)
from templates import self_signed  # noqa: E402
from tools import CURRENT, EVIDENCE, OLDEST, ROOT, command, tail  # noqa: E402

SUITE = "bookworm"
PACKAGES = """systemd systemd-sysv dbus openssh-server python3 python3-apt iproute2 procps ca-certificates curl
haproxy nftables systemd-timesyncd""".split()
NETWORK, US = "vmb-ansible", "10.77.0.1"
MACHINES = {"bridge-1": "10.77.0.11", "bridge-2": "10.77.0.12", "balancer-1": "10.77.0.5"}
BRIDGES = ["bridge-1", "bridge-2"]
TOKEN = "ansible-test-token-0123456789"
BOOT_SEC = 60
# What is looked at is whether calls are cut, and not whether this machine has room for all that it plays.
SETTINGS = {"BRIDGE_ADMIT_BUSY_PERCENT": "100"}
DRAIN_SEC = 30
# Calls come and go, each staying a dozen seconds, for longer than an upgrade of both bridges takes as a rule.
CALLS = 12
CHURN_PER_SEC = 1
LOAD_SEC = 50

# By net alone: `ip netns exec` would hide this machine's cgroups from what it starts.
INSIDE = ["nsenter", f"--net=/run/netns/{NETWORK}"]


def run(report):
    with contextlib.ExitStack() as stack:
        root = image()
        started = time.monotonic()
        stack.enter_context(network())
        for name, address in MACHINES.items():
            stack.enter_context(machine(root, name, address))
        for name in MACHINES:
            # A unit of the distribution that has failed for want of time or of a container's rights is not what is tested.
            wait(lambda name=name: on(name, "systemctl is-system-running")[1].strip() in ("running", "degraded"), f"{name} is up")
        report.note("three machines are up", f"{time.monotonic() - started:.1f} s")
        fleet = Fleet()
        first_run(report, fleet)
        the_fleet_works(report)
        second_run(report, fleet)
        upgrade(report, fleet)
        a_bad_upgrade(report, fleet)
        removal(report, fleet)


class Fleet:
    """The inventory, and playbooks run on it."""

    def __init__(self):
        self.certificate = self_signed(EVIDENCE / "balancer.pem")
        self._file = EVIDENCE / "inventory.json"
        # Kept connections are this run's alone: the next has machines of the same addresses in another network.
        self._control = tempfile.mkdtemp(prefix="vmb-ssh-")
        binary = EVIDENCE / "voice-media-bridge"
        subprocess.run(["strip", "-o", binary, os.environ["BRIDGE_BINARY"]], cwd=ROOT, check=True)
        hosts = {name: {"ansible_host": address, "voice_media_bridge_media_ip": address} for name, address in MACHINES.items()}
        hosts["bridge-1"]["voice_media_bridge_deb"] = str(ROOT / os.environ["BRIDGE_DEB"])
        hosts["bridge-2"]["voice_media_bridge_binary"] = str(binary)
        groups = {"bridges": BRIDGES, "balancers": ["balancer-1"]}
        everywhere = {
            "ansible_user": "root",
            "ansible_ssh_private_key_file": str(EVIDENCE / "key"),
            "ansible_ssh_common_args": "-o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR",
            "ansible_ssh_args": "-o ControlMaster=auto -o ControlPersist=10s",
            "voice_media_bridge_api_tokens": [TOKEN],
            "voice_media_bridge_drain_sec": DRAIN_SEC,
            "voice_media_bridge_settings": SETTINGS,
            "voice_media_bridge_balancer_tls_source": self.certificate,
        }
        self._file.write_text(json.dumps({"all": {
            "vars": everywhere,
            "hosts": hosts,
            "children": {group: {"hosts": dict.fromkeys(names)} for group, names in groups.items()},
        }}))

    def play(self, playbook, log, tools=CURRENT, hosts="all", **values):
        """Runs a playbook from inside the network: exit code, what it said, its recap by host, and how long it took."""
        words = [*INSIDE, tools / "ansible-playbook", "-i", self._file, "--limit", hosts, playbook, "-e", json.dumps(values)]
        started = time.monotonic()
        code, said = command(*words, log=log, ANSIBLE_SSH_CONTROL_PATH_DIR=self._control)
        recap = {
            host: {word: int(count) for word, count in re.findall(r"(\w+)=(\d+)", counts)}
            for host, counts in re.findall(r"^(\S+)\s+: (ok=.*)$", said, re.M)
        }
        return code, said, recap, time.monotonic() - started


def first_run(report, fleet):
    code, said, recap, took_sec = fleet.play("site.yml", "1-site.log")
    report.check("site.yml makes a fleet of three plain machines", code == 0, f"{took_sec:.0f} s" if code == 0 else tail(said, 30))
    report.note("what it did", recap)
    if code != 0:
        journals = [on(name, "journalctl -u 'voice-media-bridge*' -o cat -n 15")[1] for name in BRIDGES]
        raise RuntimeError(f"there is no fleet to look at; the journals end: {tail(''.join(journals), 30)}")


def the_fleet_works(report):
    """As a webhook sees it, as a stranger sees it, and as the machines themselves do."""
    status, answer = through_the_balancer("GET", "/ready")
    report.check("the balancer is ready, over TLS", status == 200, answer)
    homes = []
    for number in range(12):
        identity = call_id(f"ansible {number}")
        body = json.dumps({"callId": identity, "sdpOffer": offer(US)})
        status, answer = through_the_balancer("POST", "/api/sessions", body)
        if status == 200:
            homes += [name for name in BRIDGES if own_api(name, "/api/sessions").count(json.dumps(identity)) == 1]
            through_the_balancer("POST", "/bridge/stop", json.dumps({"callId": identity}))
    taken = {name: homes.count(name) for name in BRIDGES}
    report.check("calls are taken by both bridges", len(homes) == 12 and all(taken.values()), taken)
    for port, what in [(8080, "the API"), (8081, "agent-check")]:
        reached = [name for name in BRIDGES if connects(MACHINES[name], port)]
        report.check(f"nobody but the balancer reaches {what} of a bridge", not reached, reached or "dropped")
    modes = on("bridge-1", "stat -c '%a %U:%G' /etc/voice-media-bridge/credentials/api-token")[1].strip()
    report.check("secrets are root's alone", modes == "600 root:root", modes)
    for name in BRIDGES:
        report.check(f"{name} runs instance a", instance(name) == "a", on(name, "systemctl show -P StatusText voice-media-bridge@a")[1].strip())
    reserved = on("bridge-2", "sysctl", "-n", "net.ipv4.ip_local_reserved_ports")[1].strip()
    report.check("the kernel keeps off the media ports", reserved == "40000-41999", reserved)
    lines = on("bridge-2", "journalctl", "-o", "cat", "-u", "voice-media-bridge@a.service")[1].splitlines()
    is_json = [line for line in lines if line.startswith("{")]
    report.check("the journal has the bridge's lines as JSON", is_json and json.loads(is_json[0]), f"{len(is_json)} lines")
    report.check("and no token", TOKEN not in "\n".join(lines))


def second_run(report, fleet):
    """With the oldest Ansible, which the first run was not."""
    code, said, recap, took_sec = fleet.play("site.yml", "2-site-again.log", tools=OLDEST)
    changed = {host: counts["changed"] for host, counts in recap.items()}
    is_same = code == 0 and len(changed) == len(MACHINES) and not any(changed.values())
    report.check("a second run, by ansible-core 2.14, changes nothing", is_same, f"{changed}, {took_sec:.0f} s" if is_same else tail(said, 30))


def upgrade(report, fleet):
    """New settings under load: nobody who talks notices, no request fails."""
    before = {name: instance(name) for name in BRIDGES}
    with load() as callers:
        wait(lambda: sum(calls_of(name) for name in BRIDGES) >= CALLS - 1, "the load's calls are up")
        code, said, recap, took_sec = fleet.play("upgrade.yml", "3-upgrade.log", voice_media_bridge_settings=SETTINGS | {"BRIDGE_LOG": "info"})
        found = callers()
    report.check("upgrade.yml takes one bridge after another over", code == 0, f"{took_sec:.0f} s" if code == 0 else tail(said, 30))
    after = {name: instance(name) for name in BRIDGES}
    is_other = all(before[name] != after[name] and after[name] for name in BRIDGES)
    report.check("by the other instance on each", is_other, f"{before} to {after}")
    figures, packets = found["calls"], found["packets"]
    wrong = [figures[word] for word in ("refused", "neverConnected", "endedByServer", "hangupsFailed")]
    report.check(
        "no call was cut and no request failed meanwhile",
        figures["connected"] >= CALLS + CHURN_PER_SEC * (LOAD_SEC - 5) and not any(wrong) and packets["lost"] == 0,
        f"{figures['connected']} of {figures['asked']} connected, {figures['endedByServer']} cut, "
        f"{figures['hangupsFailed']} hang-ups failed, {packets['received']} packets heard, {packets['lost']} lost",
    )
    shown = dict(zip("ab", on("bridge-1", "systemctl is-enabled voice-media-bridge@a.service voice-media-bridge@b.service")[1].split()))
    is_right = shown == {before["bridge-1"]: "disabled", after["bridge-1"]: "enabled"}
    report.check("which is what starts at boot", is_right, shown)


def a_bad_upgrade(report, fleet):
    """Settings that no bridge starts on: the first node keeps its old one, the second is not touched."""
    before = {name: instance(name) for name in BRIDGES}
    bad = SETTINGS | {"BRIDGE_LOG": "no=such=filter"}
    code, said, recap, took_sec = fleet.play("upgrade.yml", "4-bad-upgrade.log", voice_media_bridge_settings=bad)
    report.check("an upgrade that fails stops at the first node", code != 0 and "bridge-2" not in recap, f"{took_sec:.0f} s, {list(recap)}")
    code, _, recap, _ = fleet.play("upgrade.yml", "4-bad-upgrade-again.log", voice_media_bridge_settings=bad)
    report.check("and again, though nothing is written any more", code != 0 and "bridge-2" not in recap, list(recap))
    after = {name: instance(name) for name in BRIDGES}
    status, _ = through_the_balancer("GET", "/ready")
    report.check("whose old instance goes on", before == after and status == 200, after)
    code, said, recap, _ = fleet.play("site.yml", "5-site-good.log", hosts="bridges", voice_media_bridge_settings=SETTINGS | {"BRIDGE_LOG": "info"})
    changed = {host: counts["changed"] for host, counts in recap.items()}
    report.check("good settings mend it, and change nothing else", code == 0 and not changed["bridge-2"], changed if code == 0 else tail(said, 30))


def removal(report, fleet):
    code, said, _, _ = fleet.play("remove.yml", "6-remove-refused.log")
    report.check("remove.yml asks first", code != 0 and "voice_media_bridge_remove=true" in said)
    code, said, recap, took_sec = fleet.play("remove.yml", "7-remove.log", voice_media_bridge_remove=True)
    report.check("remove.yml removes", code == 0, f"{took_sec:.0f} s" if code == 0 else tail(said, 30))
    for name in BRIDGES:
        words = "find /etc /usr /run /var/cache -xdev -name '*voice-media-bridge*'; find /var/lib -maxdepth 1 -name voice-media-bridge; getent passwd voice-media-bridge; nft list tables"
        left = on(name, words)[1].strip()
        report.check(f"nothing is left on {name}", not left, left)
    left = on("balancer-1", "ls -d /etc/haproxy; command -v haproxy")[1].strip().splitlines()
    report.check("nor on the balancer", not [line for line in left if line.startswith("/")], left)
    code, said, recap, _ = fleet.play("remove.yml", "8-remove-again.log", hosts="bridge-1", voice_media_bridge_remove=True)
    changed = {host: counts["changed"] for host, counts in recap.items()}
    report.check("to remove again changes nothing", code == 0 and not any(changed.values()), changed if code == 0 else tail(said, 30))


# What the machines are made of


def image():
    """A root file system, made anew each day: a package list as old would be fetched again, which it cannot be."""
    root = EVIDENCE / f"image-{time.strftime('%Y%m%d')}-{abs(hash_of(' '.join(PACKAGES)))}"
    if not root.exists():
        started = time.monotonic()
        subprocess.run("rm -rf target/ansible/image-*", shell=True, cwd=ROOT, check=True)
        making = pathlib.Path(f"{root}.new")
        words = ["mmdebstrap", "--quiet", "--variant=minbase", f"--include={','.join(PACKAGES)}", SUITE, making]
        with open(EVIDENCE / "image.log", "wb") as log:
            subprocess.run([str(word) for word in words], stdout=log, stderr=log, check=True, timeout=240)
        # Each machine makes its own; networkd gives it the address.
        (making / "etc/machine-id").write_text("")
        (making / "etc/hostname").unlink(missing_ok=True)
        wants = making / "etc/systemd/system/multi-user.target.wants"
        (wants / "systemd-networkd.service").symlink_to("/lib/systemd/system/systemd-networkd.service")
        making.rename(root)
        print(f"      image made in {time.monotonic() - started:.1f} s", flush=True)
    key = EVIDENCE / "key"
    if not key.exists():
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
    (root / "root/.ssh").mkdir(exist_ok=True)
    (root / "root/.ssh/authorized_keys").write_bytes((EVIDENCE / "key.pub").read_bytes())
    return root


def hash_of(text):
    """The same in every process."""
    return int.from_bytes(text.encode()[-4:], "big")


@contextlib.contextmanager
def network():
    """A network that has no way out."""
    subprocess.run(["ip", "netns", "delete", NETWORK], capture_output=True)
    subprocess.run(["ip", "netns", "add", NETWORK], check=True)
    try:
        for line in ("ip link set lo up", "ip link add br0 type bridge", f"ip addr add {US}/24 dev br0", "ip link set br0 up"):
            subprocess.run([*INSIDE, *line.split()], check=True)
        yield
    finally:
        subprocess.run(["ip", "netns", "delete", NETWORK], check=True)


@contextlib.contextmanager
def machine(root, name, address):
    """A machine that is booted from the image, and forgets what it wrote."""
    settings = EVIDENCE / f"{name}.network"
    settings.write_text(f"[Match]\nName=host0\n[Network]\nAddress={address}/24\n")
    words = [
        *INSIDE, "systemd-nspawn", "--quiet", "--boot", "--volatile=overlay", f"--directory={root}", f"--machine={name}",
        f"--hostname={name}", "--network-bridge=br0", f"--bind-ro={settings}:/etc/systemd/network/10-host0.network",
        # There may be no systemd on this side.
        "--register=no", "--keep-unit", "--console=pipe",
    ]
    with open(EVIDENCE / f"{name}.log", "wb") as log:
        process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
    try:
        yield
    finally:
        # The first asks for an orderly power-off, which nobody here waits for.
        process.terminate()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def on(name, *words):
    """A command on a machine, by ssh: exit code and output."""
    options = "-o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR -o ConnectTimeout=3"
    return command(*INSIDE, "ssh", "-i", EVIDENCE / "key", *options.split(), f"root@{MACHINES[name]}", *words, limit_sec=30)


def wait(holds, what, limit_sec=BOOT_SEC):
    """Polls, bounded."""
    until = time.monotonic() + limit_sec
    while not holds():
        if time.monotonic() > until:
            raise RuntimeError(f"not within {limit_sec} s: {what}")
        time.sleep(0.3)


# What they are asked


def through_the_balancer(method, path, body=None):
    """A request as the webhook makes it, certificate verified: status and text."""
    url = f"https://balancer.test{path}"
    words = ["curl", "-sS", "-m", "10", "--cacert", EVIDENCE / "balancer.pem.crt", "-X", method, "-w", "\n%{http_code}"]
    words += ["--resolve", f"balancer.test:443:{MACHINES['balancer-1']}", "-H", f"Authorization: Bearer {TOKEN}"]
    words += ["-H", "Content-Type: application/json", "--data-binary", body] if body else []
    _, said = command(*INSIDE, *words, url, limit_sec=20)
    text, _, status = said.rpartition("\n")
    return int(status) if status.isdigit() else 0, text or said


def own_api(name, path):
    """What a bridge says to its own machine."""
    return on(name, f"curl -s -m 5 -H 'Authorization: Bearer {TOKEN}' http://127.0.0.1:8080{path}")[1]


def calls_of(name):
    """Its live calls."""
    with contextlib.suppress(ValueError, KeyError):
        return json.loads(own_api(name, "/api/sessions"))["count"]
    return 0


def connects(address, port):
    """Whether a stranger gets a connection."""
    return command(*INSIDE, "bash", "-c", f"timeout 1 bash -c '</dev/tcp/{address}/{port}'")[0] == 0


def instance(name):
    """Which of the two runs and does not drain."""
    said = on(name, "systemctl is-active voice-media-bridge@a.service voice-media-bridge@b.service")[1].split()
    return "".join(letter for letter, state in zip("ab", said) if state == "active")


@contextlib.contextmanager
def load():
    """`voice-media-bridge load` from inside the network; what it yields waits for the report."""
    file = EVIDENCE / "load.json"
    file.unlink(missing_ok=True)
    words = [*INSIDE, EVIDENCE / "voice-media-bridge", "load", "--url", f"https://{MACHINES['balancer-1']}", "--ca"]
    words += [EVIDENCE / "balancer.pem.crt", "--relay-ip", US, "--calls", CALLS, "--rate", 10, "--duration", LOAD_SEC]
    words += ["--churn", CHURN_PER_SEC, "--speech", "0.4", "--json", file]
    with open(EVIDENCE / "load.log", "wb") as log:
        process = subprocess.Popen([str(word) for word in words], env=os.environ | {"BRIDGE_API_TOKEN": TOKEN}, stdout=log, stderr=log)

    def report():
        process.wait(LOAD_SEC + 60)
        return json.loads(file.read_text())

    try:
        yield report
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
