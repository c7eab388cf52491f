"""HdrHistogram's Python port reads the latencies of a call; promtool reads metrics, alert rules and their tests."""

import asyncio
import re
import subprocess
import urllib.request

from hdrh.histogram import HdrHistogram
from hdrh.log import HistogramLogReader

import bridge as server
from caller import Caller

LIMIT_SEC = 60
RULES = server.ROOT / "ansible" / "files" / "prometheus"
LISTEN_SEC = 4
STAGES = {"uplink", "jitter_wait", "tick_late", "downlink", "setup", "connect"}


def run(report):
    with server.running("latency", BRIDGE_AGENT="builtin") as bridge:
        call_id = asyncio.run(a_call(bridge))
        status, shown, _ = bridge.request("GET", server.session_path(call_id) + "/latency")
        measured = {stage["stage"] for stage in shown["stages"]}
        report.check("an ended call still shows what it measured", status == 200 and measured >= STAGES, measured)
        of_process = bridge.request("GET", "/api/latency")[1]
        turns = {stage["stage"]: stage["count"] for stage in of_process["stages"]}
        report.check("the process shows more: its loops' turns", turns.get("turn", 0) > 100, turns)
        for name, path in (("call", server.session_path(call_id) + "/latency"), ("process", "/api/latency")):
            by_reader(report, bridge, name, path)
            by_plotter(report, bridge, name, path)
        by_promtool(report, bridge)


async def a_call(bridge):
    async with Caller() as caller:
        await caller.call(bridge)
        await asyncio.sleep(LISTEN_SEC)
        await asyncio.to_thread(bridge.hang_up, caller.call_id)
        return caller.call_id


def by_reader(report, bridge, name, path):
    """The interval log, against the JSON of the same moment where that stands still."""
    log = server.EVIDENCE / f"latency-{name}.hlog"
    with urllib.request.urlopen(f"{bridge.url}{path}?format=log", timeout=10) as response:
        log.write_bytes(response.read())
    stages = {stage["stage"]: stage for stage in bridge.request("GET", path)[1]["stages"]}
    reader = HistogramLogReader(str(log), HdrHistogram(1, 60_000_000, 2))
    read = {}
    while (histogram := reader.get_next_interval_histogram()) is not None:
        read[histogram.get_tag()] = histogram
    report.check(f"hdrh reads every stage of the {name}'s log", set(read) == set(stages), sorted(read))
    still = [tag for tag in read if name == "call" or tag in ("setup", "connect", "uplink")]
    wrong = [
        tag
        for tag in still
        if read[tag].get_total_count() != stages[tag]["count"]
        or read[tag].get_value_at_percentile(50) != stages[tag]["p50Us"]
        or read[tag].get_value_at_percentile(99) != stages[tag]["p99Us"]
    ]
    report.check(f"it finds the counts and percentiles of the {name}'s JSON", not wrong, wrong or len(still))


def by_plotter(report, bridge, name, path):
    """The percentile text, read as HdrHistogram's plotter does: four numbers a line."""
    text = bridge.request("GET", path + "?format=hgrm")[1]
    blocks = re.split(r"^# stage: (\w+)$", text, flags=re.MULTILINE)[1:]
    points = {}
    for stage, block in zip(blocks[::2], blocks[1::2]):
        rows = [line.split() for line in block.splitlines() if re.match(r"\s*[\d.]+(\s+[\d.]+){3}$", line)]
        points[stage] = [(float(value), float(inverse)) for value, _, _, inverse in rows]
    rising = all(rows and rows == sorted(rows) for rows in points.values())
    report.check(
        f"the {name}'s percentile text plots as rising lines",
        set(points) >= STAGES and rising,
        {stage: len(rows) for stage, rows in points.items()},
    )


def by_promtool(report, bridge):
    metrics = bridge.request("GET", "/metrics")[1]
    checked = promtool("check", "metrics", stdin=metrics)
    report.check("promtool finds nothing to mend in the metrics", checked == (0, ""), checked)
    checked = promtool("check", "rules", str(RULES / "voice-media-bridge.rules.yml"))
    report.check("promtool takes the alert rules", checked[0] == 0, checked[1].strip().splitlines()[-1])
    checked = promtool("test", "rules", str(RULES / "voice-media-bridge.rules.test.yml"))
    report.check("alerts come when they should, and only then", checked[0] == 0, checked[1].strip().splitlines()[-1])


def promtool(*words, stdin=None):
    """Exit code and all that it said."""
    done = subprocess.run(["promtool", *words], input=stdin, capture_output=True, text=True, timeout=30, check=False)
    return done.returncode, done.stdout + done.stderr
