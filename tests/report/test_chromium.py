"""The reports in a real headless Chromium, driven over its DevTools pipe."""

import fcntl
import json
import os
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")

REPORTS = ("one", "forty", "compared", "raters", "embeddings", "crossed", "validation")

# Chromium reads commands from descriptor 3 and answers on 4; this puts ours there.
LAUNCH = "import os, sys; os.dup2(int(sys.argv[1]), 3); os.dup2(int(sys.argv[2]), 4); "
LAUNCH += "os.execv(sys.argv[3], sys.argv[3:])"


class Browser:
    """One page of a headless Chromium; `events` holds all that it reported."""

    def __init__(self, profile: Path) -> None:
        their_read, self._write = (_high(end) for end in os.pipe())
        self._read, their_write = (_high(end) for end in os.pipe())
        flags = (
            "--headless --no-sandbox --disable-gpu --disable-dev-shm-usage --disable-quic "
            "--no-first-run --disable-background-networking --disable-component-update "
            "--disable-sync --hide-scrollbars --remote-debugging-pipe"
        )
        command = [str(CHROMIUM), *flags.split(), f"--user-data-dir={profile}", "about:blank"]
        self._process = subprocess.Popen(
            [sys.executable, "-c", LAUNCH, str(their_read), str(their_write), *command],
            pass_fds=(their_read, their_write),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(their_read)
        os.close(their_write)
        self._buffer = b""
        self._number = 0
        self._session: str | None = None
        self.events: list[dict[str, Any]] = []
        targets = self.send("Target.getTargets")["targetInfos"]
        page = next(each["targetId"] for each in targets if each["type"] == "page")
        attached = self.send("Target.attachToTarget", targetId=page, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.send(f"{domain}.enable")

    def send(self, method: str, **params: Any) -> dict[str, Any]:
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while (answer := self._receive()).get("id") != self._number:
            self.events.append(answer)
        assert "error" not in answer, answer
        return answer["result"]

    def _receive(self) -> dict[str, Any]:
        deadline = time.monotonic() + 60
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._read], [], [], max(0, deadline - time.monotonic()))
            chunk = os.read(self._read, 1 << 20) if ready else b""
            assert chunk, "Chromium stopped answering"
            self._buffer += chunk
        message, _, self._buffer = self._buffer.partition(b"\0")
        return json.loads(message)

    def open(self, page: Path, width: int, scheme: str = "light") -> None:
        self.send("Emulation.setDeviceMetricsOverride", width=width, height=800,
                  deviceScaleFactor=1, mobile=width < 600)  # fmt: skip
        preference = {"name": "prefers-color-scheme", "value": scheme}
        self.send("Emulation.setEmulatedMedia", media="", features=[preference])
        self.events.clear()
        self.send("Page.navigate", url=page.as_uri())
        loaded = (
            "new Promise(done => document.readyState === 'complete' ? done(location.href) :"
            " addEventListener('load', () => done(location.href)))"
        )
        while self.run(loaded) != page.as_uri():
            time.sleep(0.05)
        self.run("Promise.all([...document.images].map(i => i.decode().catch(() => 0)))")

    def run(self, script: str) -> Any:
        answer = self.send(
            "Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True
        )
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def close(self) -> None:
        try:
            self._session = None
            self.send("Browser.close")
            self._process.wait(timeout=20)
        finally:
            self._process.kill()
            self._process.wait()
            os.close(self._read)
            os.close(self._write)


def _high(descriptor: int) -> int:
    """Move a descriptor out of the way of 3 and 4."""
    moved = fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, 10)
    os.close(descriptor)
    return moved


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    started = Browser(tmp_path_factory.mktemp("profile"))
    yield started
    started.close()


@pytest.mark.parametrize("name", REPORTS)
def test_every_page_is_quiet_legible_and_no_wider_than_the_screen(browser, reports, name):
    for width in (1280, 390):
        for scheme in ("light", "dark"):
            browser.open(reports[name], width, scheme)
            asked = [
                event["params"]["request"]["url"]
                for event in browser.events
                if event.get("method") == "Network.requestWillBeSent"
            ]
            assert asked[0] == reports[name].as_uri()  # the listening works
            assert [url[:60] for url in asked[1:] if not url.startswith("data:")] == []
            noise = ("Runtime.exceptionThrown", "Runtime.consoleAPICalled", "Log.entryAdded")
            assert [event for event in browser.events if event.get("method") in noise] == []
            browser.run("document.querySelectorAll('details').forEach(d => d.open = true)")
            assert browser.run("document.documentElement.scrollWidth") <= width
            assert wide(browser) == []
            for natural, shown, height, alt in figures(browser):
                assert natural > 0
                assert 200 < shown <= width
                assert height > 50
                assert len(alt) > 20
            assert_legible(browser, scheme)


def wide(browser: Browser) -> list[str]:
    """Return what is wider than the screen, but for what scrolls by itself, and for captions."""
    return browser.run(
        "[...document.querySelectorAll('body *')].filter(e => !e.closest('.scroll table') && "
        "e.getBoundingClientRect().right > innerWidth).map(e => e.outerHTML.slice(0, 80))"
    )


def figures(browser: Browser) -> list[list[Any]]:
    return browser.run(
        "[...document.images].map(i => [i.naturalWidth, i.clientWidth, i.clientHeight, i.alt])"
    )


def assert_legible(browser: Browser, scheme: str) -> None:
    page = browser.run("getComputedStyle(document.body).backgroundColor")
    assert (luminance(page) < 0.05) if scheme == "dark" else (luminance(page) > 0.8)
    pairs = browser.run(
        """[...document.querySelectorAll(`p, li, td, th, small, h1, h2, h3, summary, figcaption,
        strong, pre`)].map(e => {
            let b = e, back;
            do { back = getComputedStyle(b).backgroundColor; b = b.parentElement; }
            while (back === 'rgba(0, 0, 0, 0)' && b);
            return [getComputedStyle(e).color, back, e.tagName, e.className];
        })"""
    )
    assert len(pairs) > 50
    for ink, back, *element in {tuple(pair) for pair in pairs}:
        dark, light = sorted((luminance(ink), luminance(back)))
        assert (light + 0.05) / (dark + 0.05) >= 4.5, (element, ink, back)


def luminance(colour: str) -> float:
    """Return WCAG's relative luminance of an opaque ``rgb(r, g, b)``."""
    numbers = np.array([float(each) for each in colour[4:-1].split(",")]) / 255
    linear = np.where(numbers <= 0.04045, numbers / 12.92, ((numbers + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


@pytest.mark.parametrize("name", REPORTS)
def test_the_first_screen_has_the_answer_and_the_forest_plot_beside_it(browser, reports, name):
    browser.open(reports[name], 1280)
    answer, forest = (box(browser, each) for each in (".answer", ".forest"))
    assert max(answer["bottom"], forest["bottom"]) <= 800
    assert answer["right"] <= forest["left"]
    assert forest["top"] < answer["top"] + 20
    wide_shape = forest["width"] / forest["height"]
    browser.open(reports[name], 390)
    answer, forest = (box(browser, each) for each in (".answer", ".forest"))
    assert answer["bottom"] <= forest["top"]  # they are stacked, and so are its two panels
    if name not in ("one", "validation"):
        assert forest["width"] / forest["height"] < wide_shape / 1.5


def box(browser: Browser, selector: str) -> dict[str, float]:
    return browser.run(f"document.querySelector('{selector}').getBoundingClientRect().toJSON()")


def test_a_tables_title_stays_on_a_phones_screen(browser, reports):
    browser.open(reports["embeddings"], 390)
    right = browser.run(
        "[...document.querySelectorAll('.caption')].map(e => { const r = document.createRange();"
        " r.selectNodeContents(e); return r.getBoundingClientRect().right })"
    )
    assert max(right) <= 390


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_figures_follow_the_colour_scheme(browser, reports, scheme):
    browser.open(reports["compared"], 1280, scheme)
    browser.run("document.querySelectorAll('details').forEach(d => d.open = true)")
    means = browser.run(
        """Promise.all([...document.images].filter(i => !/faces/i.test(i.alt)).map(async i => {
            const c = document.createElement('canvas');
            c.width = c.height = 60;
            const g = c.getContext('2d');
            g.drawImage(i, 0, 0, 60, 60);
            const p = g.getImageData(0, 0, 60, 60).data;
            let s = 0;
            for (let k = 0; k < p.length; k += 4) s += p[k] + p[k + 1] + p[k + 2];
            return s / (p.length / 4) / 3;
        }))"""
    )
    means = np.array(means)
    assert len(means) == 11  # a face is as light as it is
    assert (means < 110).all() if scheme == "dark" else (means > 150).all()
