"""What must be seen on the page in any browser: a call from it, the call's media, and the plots of its latencies.

A browser is whatever has `evaluate(expression)` (JavaScript; its value or its promise's, as JSON), `click(selector)`
and `screenshot(path)`; this file knows nothing of how it is driven.
"""

import re
import time

import bridge as server

CONNECT_SEC = 15
LOOK_SEC = 10
CONCEALED_MAX = 0.02
# Of a call of some seconds: recorded with every packet, so that the plots of the last seconds are full.
BUSY_STAGES = ("uplink", "jitter_wait", "tick_late")
LISTS_PER_SEC_MAX = 1

STATE = "window.bridge && window.bridge.pc ? window.bridge.pc.connectionState : 'no call'"

STATS = """window.bridge.pc.getStats().then(all => {
    const found = {};
    all.forEach(one => { if (one.kind === 'audio' && /^(in|out)bound-rtp$/.test(one.type)) found[one.type] = one; });
    return found;
})"""

# The figures inside a place: the numbers of their tables, and how high and wide each curve is drawn.
FIGURES = """Array.from(document.querySelectorAll('%s figure'), figure => ({
    stage: figure.dataset.stage,
    rows: Array.from(figure.querySelectorAll('tr'), row => Array.from(row.cells, cell => cell.textContent)),
    curves: Object.fromEntries(Array.from(figure.querySelectorAll('path'), path => {
        const box = path.getBBox();
        return [path.getAttribute('class'), [Math.round(box.width), Math.round(box.height)]];
    })),
    marks: Array.from(figure.querySelectorAll('text.name'), text => text.textContent),
    alternative: figure.querySelector('svg').getAttribute('aria-label'),
}))"""

NAMES = ["p50", "p99", "p99.9"]
VALUE = re.compile(r"([\d.]+) (µs|ms|s)")
UNITS_US = {"µs": 1, "ms": 1e3, "s": 1e6}


def is_self_contained(report, bridge, browser):
    loaded = browser.evaluate("performance.getEntriesByType('resource').map(one => one.name)")
    foreign = [name for name in loaded if not name.startswith(bridge.url)]
    report.check(
        "the page loads nothing from elsewhere", not foreign, ", ".join(foreign) or f"{len(loaded)} own requests"
    )


def call(report, bridge, browser):
    """Presses Call; whether the call is up."""
    clicked = time.monotonic()
    browser.click("#call")
    state = wait_for(lambda: browser.evaluate(STATE), lambda state: state == "connected", CONNECT_SEC)
    took = f"{state}, {time.monotonic() - clicked:.2f} s"
    if not report.check("a click on Call connects", state == "connected", took):
        report.note("the page says", text(browser, "body")[:400])
        return False
    said = wait_for(lambda: text(browser, "#state"), lambda said: said.startswith("In call"), 5)
    report.check("the page says so", said.startswith("In call"), said)
    count, _ = bridge.live_calls()
    report.check("the bridge lists the browser's call", count == 1, count)
    return True


def media(report, browser, seconds):
    """Listens for so long; what the browser's own statistics say of the call then."""
    loudest, stats = 0.0, {}
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        time.sleep(0.2)
        stats = browser.evaluate(STATS)
        loudest = max(loudest, stats.get("inbound-rtp", {}).get("audioLevel", 0.0))
    heard, sent = stats.get("inbound-rtp", {}), stats.get("outbound-rtp", {})
    received, total = heard.get("packetsReceived", 0), heard.get("totalSamplesReceived", 0)
    report.check("the browser hears the bridge", received > 100, f"{received} packets, {heard.get('packetsLost')} lost")
    report.check("it is not silence", loudest > 0.01, f"audio level up to {loudest:.3f}")
    # Silent concealment is what a browser plays before the first packet; nobody hears a gap in it.
    concealed = (heard.get("concealedSamples", 0) - heard.get("silentConcealedSamples", 0)) / max(total, 1)
    report.check(
        "nothing worth naming is concealed",
        total > 0 and concealed < CONCEALED_MAX,
        f"{concealed:.3%} of {total} samples",
    )
    emitted = max(heard.get("jitterBufferEmittedCount", 0), 1)
    delay_ms = heard.get("jitterBufferDelay", 0) / emitted * 1000
    report.note("its jitter buffer", f"{delay_ms:.1f} ms mean, jitter {heard.get('jitter', 0) * 1000:.1f} ms")
    report.check(
        "the bridge hears the browser", sent.get("packetsSent", 0) > 100, f"{sent.get('packetsSent')} packets sent"
    )


def distributions(report, bridge, browser):
    """The plots of all calls, and those of this call once it is opened. For a call that has lasted some seconds."""
    status, answer, _ = bridge.request("GET", "/api/latency")
    measured = [stage["stage"] for stage in answer["stages"]] if status == 200 else []
    found = wait_for(lambda: browser.evaluate(FIGURES % "#latency"), are_full, LOOK_SEC)
    stages = [figure["stage"] for figure in found]
    in_order = [stage for stage in stages if stage in measured]  # others may have come since the bridge was asked
    report.check("every stage the bridge has measured is plotted", measured and in_order == measured, stages or status)
    plotted(report, "all calls", found)

    browser.click("#calls tbody button")
    found = wait_for(lambda: browser.evaluate(FIGURES % ".detail"), are_full, LOOK_SEC)
    plotted(report, "the call that is opened", found)
    says = browser.evaluate("Array.from(document.querySelector('#calls tbody tr').cells, cell => cell.textContent)")
    report.check(
        "the call's row shows its percentiles",
        sum(len(VALUE.findall(cell)) == 2 for cell in says) >= 2,
        " | ".join(says),
    )

    workers = browser.evaluate("Array.from(document.querySelectorAll('#workers li'), item => item.innerText)")
    status, answer, _ = bridge.request("GET", "/api/workers")
    expected = len(answer["workers"]) if status == 200 else 0
    report.check(
        "every worker is shown with its load",
        expected == len(workers) > 0 and all(re.search(r"\d %", worker) for worker in workers),
        [" ".join(worker.split()) for worker in workers] or status,
    )


def are_full(found):
    """Whether the busy stages are plotted with a distribution of the last seconds."""
    lately = {figure["stage"] for figure in found if "recent" in figure["curves"]}
    return lately.issuperset(BUSY_STAGES)


def plotted(report, whose, found):
    """Curves that have an extent, percentiles in order and marked, and words for those who do not see them."""
    report.check(
        f"{whose}: the last seconds are drawn, and all time beside them",
        are_full(found) and all(has_curves(figure) for figure in found),
        ", ".join(f"{figure['stage']} {figure['curves']}" for figure in found),
    )
    lines = {figure["stage"]: figure["rows"][2][1:4] for figure in found}
    rising = [us(line) == sorted(us(line)) and len(us(line)) == 3 for line in lines.values()]
    report.check(f"{whose}: p50, p99 and p99.9 are printed with units", rising and all(rising), lines)
    marked = all(figure["marks"] == figure["rows"][0][1:4] == NAMES for figure in found)
    told = all(value in figure["alternative"] for figure in found for value in figure["rows"][2][1:4])
    report.check(f"{whose}: they are marked in the plots, and told in words", found and marked and told)


def has_curves(figure):
    """Its plot has an area of some size for all time, and one for the last seconds unless they had few values."""
    curves = figure["curves"]
    areas = [curves["start"]] + ([curves["recent"]] if "recent" in curves else [])
    return all(width > 2 and height > 5 for width, height in areas)


def us(cells):
    """The microseconds of cells such as `1.2 ms`; those without a unit are left out."""
    return [float(found[1]) * UNITS_US[found[2]] for found in map(VALUE.fullmatch, cells) if found]


def asks_seldom(report, browser):
    """How often the page has listed all calls since it was loaded; the browser keeps the first 250 requests."""
    starts = browser.evaluate(
        "performance.getEntriesByType('resource').filter(one => one.name.endsWith('/api/sessions') &&"
        " one.initiatorType === 'fetch').map(one => one.startTime)"
    )
    # Starting a call posts to the same path: two requests of a second may be one list and that.
    crowded = max((sum(0 <= other - start < 900 for other in starts) for start in starts), default=0)
    seconds = (starts[-1] - starts[0]) / 1000 if starts else 0
    rate = len(starts) / max(seconds, 1)
    report.check(
        "it lists all calls once a second at most",
        crowded <= 2 and len(starts) <= LISTS_PER_SEC_MAX * seconds + 2,
        f"{len(starts)} in {seconds:.0f} s, {rate:.2f} a second",
    )


def hang_up(report, bridge, browser):
    browser.click("#hangup")
    count = wait_for(lambda: bridge.live_calls()[0], lambda count: count == 0, 5)
    report.check("a click on Hang up ends the call on the bridge", count == 0, f"{count} live calls")
    said = text(browser, "#state")
    report.check("and the page says so", not said.startswith("In call"), said)


def text(browser, selector):
    return browser.evaluate(f"document.querySelector('{selector}').innerText")


def picture(report, browser, name, title):
    """A screenshot among the evidence."""
    path = server.EVIDENCE / name
    browser.screenshot(path)
    report.note(title, path.relative_to(server.ROOT))


def wait_for(look, enough, seconds):
    """Looks until it is enough or the time is over; the last thing seen."""
    until = time.monotonic() + seconds
    while not enough(seen := look()) and time.monotonic() < until:
        time.sleep(0.1)
    return seen
