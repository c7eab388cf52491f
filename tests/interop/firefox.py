"""Headless Firefox with its own fake microphone calls the bridge from its page.

Driven over WebDriver BiDi, which Firefox speaks by itself: no driver beside it.
"""

import base64
import contextlib
import itertools
import json
import os
import pathlib
import signal
import subprocess
import tempfile

from websockets.sync.client import connect

import bridge as server
import browser_page as page

LIMIT_SEC = 120
START_SEC = 30  # a first start writes its profile
ANSWER_SEC = 20
CALL_SEC = 14  # a greeting, and the reply to what it takes for speech
WIDTH, HEIGHT = 1280, 900
# The fake microphone hums and asks nobody; sound may play without a click; nothing is asked of hosts of its maker.
PREFERENCES = {
    "media.navigator.streams.fake": True,
    "media.navigator.permission.disabled": True,
    "media.autoplay.default": 0,
    "app.normandy.enabled": False,
    "app.update.disabledForTesting": True,
    "browser.safebrowsing.update.enabled": False,
    "browser.shell.checkDefaultBrowser": False,
    "datareporting.policy.dataSubmissionEnabled": False,
    "extensions.update.enabled": False,
    "media.gmp-manager.updateEnabled": False,
    "network.captive-portal-service.enabled": False,
    "network.connectivity-service.enabled": False,
    "services.settings.server": "data:,none",
    "toolkit.telemetry.enabled": False,
}


def run(report):
    server.EVIDENCE.mkdir(parents=True, exist_ok=True)
    # Firefox never sends to a loopback address. Empty is the default: the address that this machine's route uses.
    with server.running("firefox", BRIDGE_AGENT="builtin", BRIDGE_MEDIA_IP="") as bridge, firefox() as browser:
        browser.load(bridge.url + "/")
        a_call_from_the_page(report, bridge, browser)
        report.check("the page logged no error", not browser.errors(), "; ".join(browser.errors()))


def a_call_from_the_page(report, bridge, browser):
    if not page.call(report, bridge, browser):
        return
    page.media(report, browser, CALL_SEC)
    page.distributions(report, bridge, browser)
    page.asks_seldom(report, browser)
    page.is_self_contained(report, bridge, browser)
    page.picture(report, browser, "page-in-firefox.png", "the page in the call")
    page.hang_up(report, bridge, browser)


@contextlib.contextmanager
def firefox():
    """A browser with one empty tab."""
    log_path = server.EVIDENCE / "firefox-browser.log"
    with tempfile.TemporaryDirectory(prefix="interop-firefox-", ignore_cleanup_errors=True) as folder:
        profile = pathlib.Path(folder)
        lines = [f"user_pref({json.dumps(name)}, {json.dumps(value)});" for name, value in PREFERENCES.items()]
        (profile / "user.js").write_text("\n".join(lines))
        words = ["firefox-esr", "--headless", "--no-remote", "--profile", folder, "--remote-debugging-port", "0"]
        size = {"MOZ_HEADLESS_WIDTH": str(WIDTH), "MOZ_HEADLESS_HEIGHT": str(HEIGHT), "HOME": folder}
        with open(log_path, "wb") as log:
            process = subprocess.Popen(words, env=os.environ | size, stdout=log, stderr=log, start_new_session=True)
        try:
            with connect(address(profile, process, log_path), max_size=None, proxy=None) as connection:
                yield Firefox(connection)
        finally:
            # Its content processes are of its group, and would outlive it for a while.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def address(profile, process, log_path):
    """Where it listens: written into its profile once it does."""
    found = page.wait_for(
        lambda: (profile / "WebDriverBiDiServer.json").is_file() or process.poll() is not None, bool, START_SEC
    )
    if not found or process.poll() is not None:
        tail = log_path.read_text(errors="replace")[-2000:]
        raise RuntimeError(f"Firefox does not listen (exit {process.poll()}) after {START_SEC} s; its log:\n{tail}")
    where = json.loads((profile / "WebDriverBiDiServer.json").read_text())
    return f"ws://{where['ws_host']}:{where['ws_port']}/session"


class Firefox:
    """The browser of `browser_page`, by WebDriver BiDi."""

    def __init__(self, connection):
        self._connection, self._numbers, self._errors = connection, itertools.count(1), []
        self.command("session.new", capabilities={})
        self.command("session.subscribe", events=["log.entryAdded"])
        self._tab = self.command("browsingContext.getTree")["contexts"][0]["context"]
        size = {"width": WIDTH, "height": HEIGHT}
        self.command("browsingContext.setViewport", context=self._tab, viewport=size)

    def command(self, method, **params):
        """Its result. What the page logs meanwhile is kept."""
        number = next(self._numbers)
        self._connection.send(json.dumps({"id": number, "method": method, "params": params}))
        while True:
            message = json.loads(self._connection.recv(timeout=ANSWER_SEC))
            if message["type"] == "event":
                entry = message["params"]
                if entry["level"] == "error":
                    self._errors.append(entry["text"])
            elif message["id"] == number:
                if message["type"] == "error":
                    raise RuntimeError(f"{method}: {message['error']}, {message['message']}")
                return message["result"]

    def load(self, url):
        self.command("browsingContext.navigate", context=self._tab, url=url, wait="complete")

    def evaluate(self, expression):
        asked = {"expression": f"Promise.resolve({expression}).then(value => JSON.stringify(value ?? null))"}
        answer = self.command("script.evaluate", **asked, target={"context": self._tab}, awaitPromise=True)
        if answer["type"] == "exception":
            raise RuntimeError(answer["exceptionDetails"]["text"])
        return json.loads(answer["result"]["value"])

    def click(self, selector):
        """As a hand does it: the page takes it for the person's wish."""
        look = f"document.querySelector('{selector}')"
        script = {"expression": f"{look}.scrollIntoView({{block: 'center'}}), {look}", "awaitPromise": False}
        found = self.command("script.evaluate", **script, target={"context": self._tab})["result"]
        origin = {"type": "element", "element": {"sharedId": found["sharedId"]}}
        steps = [
            {"type": "pointerMove", "x": 0, "y": 0, "origin": origin},
            {"type": "pointerDown", "button": 0},
            {"type": "pointerUp", "button": 0},
        ]
        hand = {"type": "pointer", "id": "hand", "parameters": {"pointerType": "mouse"}, "actions": steps}
        self.command("input.performActions", context=self._tab, actions=[hand])

    def screenshot(self, path):
        """The whole page, not the window's part of it."""
        picture = self.command("browsingContext.captureScreenshot", context=self._tab, origin="document")
        path.write_bytes(base64.b64decode(picture["data"]))

    def errors(self):
        """What the page logged as errors until now."""
        self.command("session.status")  # what was logged before it has come when it is answered
        return self._errors
