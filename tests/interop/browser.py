"""Headless Chromium with a fake microphone calls the bridge from its own page."""

import base64
import contextlib
import json
import os
import tempfile

import numpy
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By

import bridge as server
import browser_page as page
import speech

LIMIT_SEC = 120
CALL_SEC = 14  # a greeting, then the phrase and its reply
PHONE = {"width": 360, "height": 780, "deviceScaleFactor": 2, "mobile": True}
# Without the last six, Chromium asks for hosts of its maker at every start.
FLAGS = """--headless --no-sandbox --disable-gpu --use-fake-device-for-media-stream --use-fake-ui-for-media-stream
--autoplay-policy=no-user-gesture-required --window-size=1280,900 --disable-quic --no-first-run
--disable-background-networking --disable-component-update --disable-sync --disable-default-apps""".split()


def run(report):
    server.EVIDENCE.mkdir(parents=True, exist_ok=True)
    phrase = speech.spoken(speech.PHRASE, server.EVIDENCE)
    microphone = speech.save(
        server.EVIDENCE / "microphone.wav", numpy.concatenate([speech.silence(5), phrase, speech.silence(3)])
    )
    with server.running("browser", BRIDGE_AGENT="builtin") as bridge, chromium(microphone) as driver:
        driver.get(bridge.url + "/")
        browser = Chromium(driver)
        a_call_from_the_page(report, bridge, browser)
        errors = [line["message"] for line in driver.get_log("browser") if line["level"] == "SEVERE"]
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
        driver = webdriver.Chrome(options=options, service=service)
        try:
            driver.set_page_load_timeout(20)
            driver.set_script_timeout(10)
            yield driver
        finally:
            driver.quit()


class Chromium:
    """The browser of `browser_page`, by WebDriver."""

    def __init__(self, driver):
        self._driver = driver

    def evaluate(self, expression):
        done = "value => arguments[0](JSON.stringify(value ?? null))"
        return json.loads(self._driver.execute_async_script(f"Promise.resolve({expression}).then({done})"))

    def click(self, selector):
        self._driver.find_element(By.CSS_SELECTOR, selector).click()

    def screenshot(self, path):
        """The whole page, not the window's part of it."""
        size = self.evaluate("[document.documentElement.clientWidth, document.documentElement.scrollHeight]")
        clip = {"x": 0, "y": 0, "width": size[0], "height": size[1], "scale": 1}
        words = {"captureBeyondViewport": True, "clip": clip}
        path.write_bytes(base64.b64decode(self._driver.execute_cdp_cmd("Page.captureScreenshot", words)["data"]))

    def on_a_phone(self, is_dark):
        """From now on as wide as a phone, and in this colour scheme."""
        scheme = {"name": "prefers-color-scheme", "value": "dark" if is_dark else "light"}
        self._driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
        self._driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", PHONE)


def a_call_from_the_page(report, bridge, browser):
    if not page.call(report, bridge, browser):
        return
    page.media(report, browser, CALL_SEC)
    _, [call_id] = bridge.live_calls()
    session = bridge.session(call_id)[1]
    late = next((stage for stage in session["latency"] if stage["stage"] == "tick_late"), None)
    report.note("the bridge's own beat", f"{session['downlink']}, {late}")

    page.distributions(report, bridge, browser)
    page.asks_seldom(report, browser)
    page.is_self_contained(report, bridge, browser)
    page.picture(report, browser, "page-in-call.png", "the page in the call")
    browser.on_a_phone(is_dark=True)
    widths = browser.evaluate("[document.documentElement.scrollWidth, innerWidth]")
    report.check("it fits a phone", widths[0] <= PHONE["width"] == widths[1], widths)
    page.picture(report, browser, "page-on-a-phone.png", "the page on a phone, dark")
    page.hang_up(report, bridge, browser)
