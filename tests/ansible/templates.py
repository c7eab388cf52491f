"""What the templates make of several inputs, judged by the programs that will read it."""

import json
import re
import shutil
import subprocess
import sys
import tomllib

import yaml

from tools import CURRENT, EVIDENCE, PLAYBOOKS, ROOT, command, tail

HERE = ROOT / "tests" / "ansible"
BRIDGE, BALANCER, MONITORING = "voice_media_bridge", "voice_media_bridge_balancer", "voice_media_bridge_monitoring"
NODE_NAMES = ["bridge-1", "bridge-2", "bridge-3"]


# Each case: what it is called, whose templates, for which host, which of them, and what is not as by default.
CASES = []


def case(name, role, host, files, **values):
    """Adds one; where its files will be."""
    folder = EVIDENCE / "rendered" / name
    CASES.append((name, role, host, files, values, folder))
    return folder


def run(report):
    shutil.rmtree(EVIDENCE / "rendered", ignore_errors=True)
    judges = [haproxy(report), firewall(report), units(report), settings(report), numbers(report), prometheus(report)]
    for judge in judges:  # up to where the files are needed
        next(judge)
    render()
    for judge in judges:
        next(judge, None)


def render():
    """Writes the files of all cases. A case is a host that has the role's defaults, its own values, and its host's address."""
    inventory = yaml.safe_load((HERE / "hosts.yml").read_text())
    hosts = {}
    for name, role, host, files, values, folder in CASES:
        folder.mkdir(parents=True)
        defaults = yaml.safe_load((PLAYBOOKS / "roles" / role / "defaults" / "main.yml").read_text())
        own = {f"{role}_{word}": value for word, value in values.items()}
        place = {"role_path": str(PLAYBOOKS / "roles" / role), "case_folder": str(folder), "case_files": files}
        hosts[name] = defaults | own | place | {"ansible_python_interpreter": sys.executable}
        hosts[name] = {word: host if value == "{{ inventory_hostname }}" else value for word, value in hosts[name].items()}
    inventory["all"]["children"]["cases"] = {"hosts": hosts}
    (EVIDENCE / "rendered" / "inventory.json").write_text(json.dumps(inventory))
    words = ["-i", EVIDENCE / "rendered" / "inventory.json", HERE / "render.yml"]
    code, said = command(CURRENT / "ansible-playbook", *words, log="rendered/log")
    if code != 0:
        raise RuntimeError(f"templates are not rendered: {tail(said, 30)}")


def haproxy(report):
    certificate = self_signed(EVIDENCE / "rendered" / "front.pem")
    everything = {
        "tls_cert": certificate,
        "listen": [":443", "[::1]:8443"],
        "redirect_listen": [":80"],
        "peers": [{"name": "balancer-1", "address": "10.0.0.5"}, {"name": "balancer-2", "address": "10.0.0.6", "port": 10242}],
        "nodes_ca": certificate,
    }
    folders = {
        words: case(name, BALANCER, "balancer-1", ["haproxy.cfg"], **values)
        for name, words, values in [
            ("haproxy-default", "one balancer with TLS", {"tls_cert": certificate}),
            ("haproxy-everything", "two, with a redirect, IPv6, and TLS to the nodes", everything),
            ("haproxy-plain", "a plain front", {"tls_cert": "", "listen": ["127.0.0.1:8080"]}),
            ("haproxy-no-nodes", "no nodes yet", {"tls_cert": certificate, "nodes": []}),
        ]
    }
    yield
    for words, folder in folders.items():
        code, said = command("haproxy", "-c", "-f", folder / "haproxy.cfg")
        is_silent = said.strip() == "Configuration file is valid"
        report.check(f"haproxy -c: {words}", code == 0 and is_silent, "" if is_silent else tail(said))
    text = (EVIDENCE / "rendered" / "haproxy-everything" / "haproxy.cfg").read_text()
    servers = re.findall(r"^    server (\S+) (\S+) ssl verify required ca-file \S+ verifyhost \1 agent-port (\d+)$", text, re.M)
    expected = [("bridge-1", "10.0.0.11:8080", "8081"), ("bridge-2", "10.0.0.12:8080", "8081"), ("bridge-3", "10.0.0.13:9080", "9081")]
    report.check("each node by its own address and ports, its certificate verified", servers == expected, servers)
    known = re.findall(r"^    server (\S+) (\S+) ssl verify required ca-file \S+ verifyhost \1 track bridges/\1$", text, re.M)
    report.check("in the same order where calls are known", known == [server[:2] for server in servers], known)


def firewall(report):
    relays = ["31.13.24.0/21", "31.13.64.0/18", "157.240.0.0/16", "2a03:2880::/32"]
    folders = {
        words: case(name, BRIDGE, "bridge-1", ["firewall.nft"], **values)
        for name, words, values in [
            ("nft-default", "media from anywhere", {}),
            ("nft-relays", "media from WhatsApp's networks alone", {"media_networks": relays}),
            ("nft-nobody", "nobody, and no agent-check", {"balancer_networks": [], "monitoring_networks": [], "agent_check_port": 0}),
        ]
    }
    yield
    for words, folder in folders.items():
        code, said = command("nft", "-c", "-f", folder / "firewall.nft")
        report.check(f"nft -c: {words}", code == 0, "" if code == 0 else tail(said))
    text = (EVIDENCE / "rendered" / "nft-default" / "firewall.nft").read_text()
    report.check("agent-check is for balancers alone", re.search(r"set agent_check_ipv4 \{[^}]*elements = \{ 10\.0\.0\.5 \}", text))
    report.check("the API for monitoring too", re.search(r"set api_ipv4 \{[^}]*elements = \{ 10\.0\.0\.5, 10\.0\.0\.6 \}", text))


def units(report):
    """The units of the repository with what the role adds to them. The program is not on this machine."""
    folder = case("units", BRIDGE, "bridge-1", ["firewall.service", "listen.conf", "drain.conf"])
    yield
    (folder / "firewall.service").rename(folder / "voice-media-bridge-firewall.service")
    for name, addition in [("voice-media-bridge.socket", "listen.conf"), ("voice-media-bridge@.service", "drain.conf")]:
        text = (ROOT / "systemd" / name).read_text()
        (folder / name).write_text(text.replace("ExecStart=/usr/bin/voice-media-bridge", "ExecStart=/bin/true"))
        (folder / f"{name}.d").mkdir()
        (folder / addition).rename(folder / f"{name}.d" / addition)
    for unit in ("voice-media-bridge-firewall.service", "voice-media-bridge.socket", "voice-media-bridge@a.service"):
        code, said = command("systemd-analyze", "verify", "--man=no", unit, folder=folder, SYSTEMD_UNIT_PATH=f"{folder}:")
        ours = [line for line in said.splitlines() if "voice-media-bridge" in line]
        report.check(f"systemd-analyze verify: {unit}", code == 0 and not ours, "" if code == 0 and not ours else tail(said))


def settings(report):
    """Whatever a setting holds, systemd reads it as it was."""
    hard = {"BRIDGE_EVENTS_URL": 'https://hooks.example/a?b="c"&d=%20$HOME\\e', "BRIDGE_WORKERS": 2}
    folder = case("settings", BRIDGE, "bridge-1", ["voice-media-bridge.env"], settings=hard)
    yield
    text = (folder / "voice-media-bridge.env").read_text()
    found = re.search(r'^BRIDGE_EVENTS_URL="(.*)"$', text, re.M)
    # The rule of EnvironmentFile=: within double quotes a backslash takes the meaning of the next " \ ` or $.
    value = re.sub(r'\\(["\\`$])', r"\1", found[1]) if found else None
    report.check("a setting survives its quotes", value == hard["BRIDGE_EVENTS_URL"], value)
    report.check("numbers are numbers", 'BRIDGE_WORKERS="2"' in text)


def numbers(report):
    """What the inventory says of WhatsApp's numbers is what a reader of TOML finds."""
    hard = 'Say "hello"\n\\ and # \U0001f600 = [1]'
    tools = [{"type": "function", "name": "look", "parameters": {"type": "object", "properties": {"a b": {"type": "string"}}, "required": []}}]
    values = {
        "whatsapp_config": {"voice": "marin", "turnDetection": {"threshold": 0.5, "createResponse": True}},
        "whatsapp_numbers": [
            {"phone_number_id": "106540352242922", "name": "sales", "config": {"instructions": hard, "tools": tools}},
            {"phone_number_id": 106540352242923, "calls": "reject", "access_token": "canary", "app_secret": "canary"},
        ],
        "webhook_forward_url": 'https://hooks.example/?a="b"',
    }
    files = ["numbers.toml", "voice-media-bridge.env"]
    folder = case("numbers", BRIDGE, "bridge-1", files, **values)
    one = case("number", BRIDGE, "bridge-1", files, whatsapp_phone_number_id="106540352242922")
    yield
    text = (folder / "numbers.toml").read_text()
    try:
        found = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        found = {"error": str(error)}
    expected = {
        "config": values["whatsapp_config"],
        "number": [
            {"phone_number_id": "106540352242922", "name": "sales", "config": {"instructions": hard, "tools": tools}},
            {
                "phone_number_id": "106540352242923",
                "calls": "reject",
                "access_token_file": "106540352242923.access-token",
                "app_secret_file": "106540352242923.app-secret",
            },
        ],
    }
    report.check("numbers are read as they were written", found == expected, "" if found == expected else found)
    report.check("and no secret is among them", "canary" not in text)
    env = (folder / "voice-media-bridge.env").read_text()
    named = "BRIDGE_WHATSAPP_NUMBERS=/etc/voice-media-bridge/whatsapp/numbers.toml\n" in env
    report.check("the settings name their file", named and "PHONE_NUMBER_ID" not in env)
    report.check("and the receiver of webhooks", 'BRIDGE_WEBHOOK_FORWARD_URL="https://hooks.example/?a=\\"b\\""\n' in env)
    report.check("or the only number", "WHATSAPP_PHONE_NUMBER_ID=106540352242922\n" in (one / "voice-media-bridge.env").read_text())


def prometheus(report):
    files = ["prometheus.yml", "scrape.yml", "nodes.json", "grafana-dashboards.yml", "grafana-datasources.yml"]
    folders = {
        words: case(name, MONITORING, "monitoring-1", files, **values)
        for name, words, values in [
            ("prometheus", "alone", {}),
            ("prometheus-alertmanager", "with an alertmanager", {"alertmanagers": ["10.0.0.7:9093"], "scheme": "https"}),
        ]
    }
    yield
    for words, folder in folders.items():
        # It looks for the files that it names: here they are beside it.
        text = (folder / "prometheus.yml").read_text().replace("/etc/prometheus/voice-media-bridge/", f"{folder}/")
        (folder / "here.yml").write_text(text)
        (folder / "token").write_text("token")
        shutil.copy(PLAYBOOKS / "files" / "prometheus" / "voice-media-bridge.rules.yml", folder / "rules.yml")
        code, said = command("promtool", "check", "config", folder / "here.yml")
        report.check(f"promtool check config: {words}", code == 0, "" if code == 0 else tail(said))
    nodes = json.loads((folder / "nodes.json").read_text())
    names, targets = [node["labels"]["node"] for node in nodes], [node["targets"] for node in nodes]
    report.check("each node is scraped by its own address", names == NODE_NAMES and targets[2] == ["10.0.0.13:9080"], targets)


def self_signed(path):
    """A certificate for `balancer.test` with its key, in one file; without the key in `.crt` beside it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    names = "DNS:balancer.test,IP:127.0.0.1,IP:10.77.0.5"
    # Not openssl's default of CA:TRUE, which strict clients refuse in a server's certificate.
    rules = "[req]\nprompt=no\ndistinguished_name=dn\nx509_extensions=ext\n[dn]\nCN=balancer.test\n[ext]\nbasicConstraints=CA:FALSE\n"
    config = path.with_suffix(".cnf")
    config.write_text(rules + f"subjectAltName={names}\n")
    words = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2".split()
    subprocess.run(
        ["openssl", *words, "-config", config, "-keyout", path, "-out", f"{path}.crt"], check=True, capture_output=True
    )
    path.write_text(path.read_text() + open(f"{path}.crt").read())
    return str(path)
