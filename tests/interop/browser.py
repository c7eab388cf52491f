"""Headless Chromium with a fake microphone calls the bridge from its own page."""

import contextlib
import os
import tempfile
import time

import numpy
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By

import bridge as server
import speech

LIMIT_SEC = 120
CONNECT_SEC = 15
CALL_SEC = 14  # a greeting, then the phrase and its reply
CONCEALED_MAX = 0.02
SCREENSHOT = server.EVIDENCE / "page-in-call.png"
# Without the last six, Chromium asks for hosts of its maker at every start.
FLAGS = """--headless --no-sandbox --disable-gpu --use-fake-device-for-media-stream --use-fake-ui-for-media-stream
--autoplay-policy=no-user-gesture-required --window-size=1280,900 --disable-quic --no-first-run
--disable-background-networking --disable-component-update --disable-sync --disable-default-apps""".split()

STATS = """
const done = arguments[0];
window.bridge.pc.getStats().then(all => {
    const found = {};
    all.forEach(one => { if (one.kind === 'audio' && /^(in|out)bound-rtp$/.test(one.type)) found[one.type] = one; });
    done(found);
});
"""


def run(report):
    server.EVIDENCE.mkdir(parents=True, exist_ok=True)
    phrase = speech.spoken(speech.PHRASE, server.EVIDENCE)
    microphone = speech.save(
        server.EVIDENCE / "microphone.wav", numpy.concatenate([speech.silence(5), phrase, speech.silence(3)])
    )
    with server.running("browser", BRIDGE_AGENT="builtin") as bridge, chromium(microphone) as browser:
        browser.get(bridge.url + "/")
        the_page_is_self_contained(report, bridge, browser)
        a_call_from_the_page(report, bridge, browser)
        errors = [line["message"] for line in browser.get_log("browser") if line["level"] == "SEVERE"]
        report.check("the page logged no error", not errors, "; ".join(errors))


@contextlib.contextmanager
def chromium(microphone):
    """A browser whose microphone plays this file over and over."""
    options = webdriver.ChromeOptions()
    options.binary_location = "/usr/bin/chromium"
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    with tempfile.TemporaryDirectory(prefix="interop-chromium-") as profile:
        for flag in (*FLAGS, f"--user-data-dir={profile}", f"--use-file-for-fake-audio-capture={microphone}"):
            options.add_argument(flag)
        log = str(server.EVIDENCE / "chromedriver.log")
        service = Service("/usr/bin/chromedriver", log_output=log, env=os.environ | {"HOME": profile})
        browser = webdriver.Chrome(options=options, service=service)
        try:
            browser.set_page_load_timeout(20)
            browser.set_script_timeout(10)
            yield browser
        finally:
            browser.quit()


def the_page_is_self_contained(report, bridge, browser):
    loaded = browser.execute_script("return performance.getEntriesByType('resource').map(one => one.name)")
    foreign = [name for name in loaded if not name.startswith(bridge.url)]
    report.check(
        "the page loads nothing from elsewhere", not foreign, ", ".join(foreign) or f"{len(loaded)} own requests"
    )


def a_call_from_the_page(report, bridge, browser):
    clicked = time.monotonic()
    browser.find_element(By.ID, "call").click()
    state = wait_for(lambda: connection_state(browser), lambda state: state == "connected", CONNECT_SEC)
    if not report.check(
        "a click on Call connects", state == "connected", f"{state}, {time.monotonic() - clicked:.2f} s"
    ):
        report.note("the page says", browser.find_element(By.TAG_NAME, "body").text[:400])
        return
    said = wait_for(lambda: browser.find_element(By.ID, "state").text, lambda text: text.startswith("In call"), 5)
    report.check("the page says so", said.startswith("In call"), said)
    count, _ = bridge.live_calls()
    report.check("the bridge lists the browser's call", count == 1, count)

    loudest, stats, pictured = 0.0, {}, False
    until = time.monotonic() + CALL_SEC
    while time.monotonic() < until:
        time.sleep(0.2)
        stats = browser.execute_async_script(STATS)
        level = stats.get("inbound-rtp", {}).get("audioLevel", 0.0)
        loudest = max(loudest, level)
        late_enough = until - time.monotonic() < CALL_SEC / 3
        if late_enough and not pictured and (level > 0.1 or until - time.monotonic() < 1):
            pictured = browser.save_screenshot(str(SCREENSHOT))
    report.note("the page in the call", f"{SCREENSHOT.relative_to(server.ROOT)}: {in_one_line(browser)}")
    its_stats(report, stats, loudest)
    _, [call_id] = bridge.live_calls()
    session = bridge.session(call_id)[1]
    late = next((stage for stage in session["latency"] if stage["stage"] == "tick_late"), None)
    report.note("the bridge's own beat", f"{session['downlink']}, {late}")

    browser.find_element(By.ID, "hangup").click()
    count = wait_for(lambda: bridge.live_calls()[0], lambda count: count == 0, 5)
    report.check("a click on Hang up ends the call on the bridge", count == 0, f"{count} live calls")
    said = browser.find_element(By.ID, "state").text
    report.check("and the page says so", not said.startswith("In call"), said)


def its_stats(report, stats, loudest):
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


def connection_state(browser):
    return browser.execute_script(
        "return window.bridge && window.bridge.pc ? window.bridge.pc.connectionState : 'no call'"
    )


def in_one_line(browser):
    return " | ".join(browser.find_element(By.TAG_NAME, "body").text.split("\n"))[:300]


def wait_for(look, enough, seconds):
    """Looks until it is enough or the time is over; the last thing seen."""
    until = time.monotonic() + seconds
    while not enough(seen := look()) and time.monotonic() < until:
        time.sleep(0.1)
    return seen
