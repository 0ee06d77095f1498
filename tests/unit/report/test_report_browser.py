"""The report in headless Chromium, driven over its debugging pipe: nothing to install but the browser."""

import json
import os
import shutil
import subprocess
import sys

import pytest
from report_samples import HOSTILE, make_report

from keras_opt.report import write_report

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --remote-debugging-pipe"
)
PROBE = """({
    overflow: document.scrollingElement.scrollWidth - document.scrollingElement.clientWidth,
    window: innerWidth,
    images: document.images.length,
    broken: [...document.images].filter(image => !image.naturalWidth).length,
})"""

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")


class Browser:
    """Headless Chromium with one page; `events` collects what it reports."""

    def __init__(self, folder):
        to_browser, self._out = os.pipe()
        self._in, from_browser = os.pipe()
        # The browser reads commands from descriptor 3 and answers on 4: a first process moves ours there.
        move = (
            f"import os, sys; os.dup2({to_browser}, 3); os.dup2({from_browser}, 4); os.execv(sys.argv[1], sys.argv[1:])"
        )
        browser = [CHROMIUM, *FLAGS.split(), f"--user-data-dir={folder}", "about:blank"]
        command = [sys.executable, "-c", move, *browser]
        ends = (to_browser, from_browser)
        self._process = subprocess.Popen(command, pass_fds=ends, stderr=subprocess.DEVNULL)
        for end in ends:
            os.close(end)
        self._buffer, self._last, self._session, self.events = b"", 0, {}, []
        (target,) = [t for t in self.call("Target.getTargets")["targetInfos"] if t["type"] == "page"]
        attached = self.call("Target.attachToTarget", targetId=target["targetId"], flatten=True)
        self._session = {"sessionId": attached["sessionId"]}
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method, **params):
        self._last += 1
        message = {"id": self._last, "method": method, "params": params, **self._session}
        os.write(self._out, json.dumps(message).encode() + b"\0")
        while (answer := self._read()).get("id") != self._last:
            self.events.append(answer)
        assert "error" not in answer, answer
        return answer["result"]

    def open(self, url, width):
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=False)
        self.events.clear()
        self.call("Page.navigate", url=url)
        while not any(event.get("method") == "Page.loadEventFired" for event in self.events):
            self.events.append(self._read())
        return self.call("Runtime.evaluate", expression=PROBE, returnByValue=True)["result"]["value"]

    def of(self, method):
        return [event["params"] for event in self.events if event.get("method") == method]

    def close(self):
        self._process.terminate()
        self._process.wait(timeout=10)
        os.close(self._out)
        os.close(self._in)

    def _read(self):
        while b"\0" not in self._buffer:
            chunk = os.read(self._in, 1 << 16)
            assert chunk, "chromium has ended"
            self._buffer += chunk
        message, self._buffer = self._buffer.split(b"\0", 1)
        return json.loads(message)


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    browser = Browser(tmp_path_factory.mktemp("chromium"))
    yield browser
    browser.close()


@pytest.mark.parametrize("width", [1280, 400])
@pytest.mark.parametrize("names", [["bad", "good"], [f"{HOSTILE} {'long' * 20} {i}" for i in range(40)]], ids=len)
def test_the_page_fits_shows_every_image_and_asks_for_nothing(browser, tmp_path, names, width):
    write_report(tmp_path / "report.html", make_report(names))
    url = (tmp_path / "report.html").as_uri()
    seen = browser.open(url, width)
    assert seen == {"window": width, "overflow": 0, "images": 12, "broken": 0}
    assert browser.of("Log.entryAdded") == []
    assert browser.of("Runtime.exceptionThrown") == []
    assert browser.of("Runtime.consoleAPICalled") == []
    requested = [event["request"]["url"] for event in browser.of("Network.requestWillBeSent")]
    assert [address for address in requested if not address.startswith("data:")] == [url]
