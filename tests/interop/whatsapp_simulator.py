"""Our simulated WhatsApp calls a bridge that we did not write, pipecat's, and writes to a bot that we did not write, pywa's.

What it finds right there is right by others' measure too; what it finds wrong must be something that pipecat is known to do.
"""

import json
import os
import subprocess
import sys

import bridge as server
import meta
from whatsapp_forwarding import bot, handled, wait_for

LIMIT_SEC = 90
PROGRAM = server.pathlib.Path(__file__).with_name("whatsapp_pipecat.py")
RUN_SEC = 60
SCENARIOS = ["happy", "late-accept", "unknown-fields", "user-hangs-up"]
# With a call and a message in them, and nothing that a bot must do about it.
READ_BY_A_BOT = ["stale-connect", "other-events", "verification"]
# pipecat asks for accept right behind pre_accept, where Meta advises to wait for the media path.
KNOWN = "media is connected before accept is asked"
# A matter of the machine, where the peer is an interpreter that loads what it needs with the first call.
UNTIMED = "each webhook is answered 200 within 1 s"


def run(report):
    a_bridge_of_others(report)
    a_bot_of_others(report)


def a_bot_of_others(report):
    port, graph_port = server.free_port(), server.free_port()
    seen = server.EVIDENCE / "whatsapp-simulator-receiver.jsonl"
    seen.unlink(missing_ok=True)
    seen.touch()
    with bot(port, seen):
        _, found = simulated(f"http://127.0.0.1:{port}/webhook", graph_port, READ_BY_A_BOT)
        lines = wait_for(seen, lambda lines: len(handled(lines)) >= 2)
    held = [scenario["name"] for scenario in found["scenarios"] if scenario["held"]]
    report.check("pywa verifies the webhook and takes the signatures", sorted(held) == sorted(READ_BY_A_BOT), held)
    read = sorted(line["handled"] for line in handled(lines))
    report.check(
        "pywa reads the simulated call and the simulated message", read == ["Do you take calls?", "a call"], read
    )


def a_bridge_of_others(report):
    port, graph_port = server.free_port(), server.free_port()
    webhook = f"http://127.0.0.1:{port}{meta.PATH}"
    with pipecat(port, f"http://127.0.0.1:{graph_port}"):
        code, found = simulated(webhook, graph_port, SCENARIOS)
    names = [scenario["name"] for scenario in found["scenarios"]]
    report.check("the simulator runs what it was asked for", sorted(names) == sorted(SCENARIOS), names)
    for scenario in found["scenarios"]:
        for check in scenario["checks"]:
            sentence, seen = f"{scenario['name']}: {check['text']}", check["seen"]
            if check["text"] == KNOWN:
                report.check(f"{sentence}: pipecat does not wait, and is told so", not check["held"], seen)
            elif check["text"] == UNTIMED:
                report.note(sentence, seen)
            else:
                report.check(sentence, check["held"], seen)
    held = [scenario["name"] for scenario in found["scenarios"] if scenario["held"]]
    report.check("its exit code says that not all held", code == 3 and found["held"] == len(held), (code, held))


def simulated(webhook, graph_port, scenarios):
    """Runs the scenarios, all at once: exit code and report."""
    result = server.EVIDENCE / "whatsapp-simulator.json"
    words = ["simulate-whatsapp", "--webhook", webhook, "--listen", f"127.0.0.1:{graph_port}", "--json", str(result)]
    words += [word for name in scenarios for word in ("--scenario", name)] + ["--at-once", str(len(scenarios))]
    log = server.EVIDENCE / "whatsapp-simulator.log"
    with open(log, "wb") as file:
        done = subprocess.run(
            [str(server.BINARY), *words, "--verbose"],
            check=False,
            env=dict(os.environ) | meta.settings(""),
            stdout=file,
            stderr=file,
            timeout=RUN_SEC,
        )
    if done.returncode not in (0, 3):
        raise RuntimeError(f"the simulator fails: {log.read_text(errors='replace')[-1000:]}")
    return done.returncode, json.loads(result.read_text())


def pipecat(port, graph_url):
    """Started, awaited, ended."""
    command = [sys.executable, PROGRAM, str(port), graph_url]
    return server.program("pipecat", command, "whatsapp-pipecat.log", port, "/nothing")
