"""A headless Chromium, driven over its debugging pipe: nothing to install but the browser itself."""

from __future__ import annotations

import base64
import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
_FLAGS = (
    "--headless=new", "--remote-debugging-pipe", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
    "--no-first-run", "--disable-extensions", "--disable-background-networking", "--disable-component-update",
    "--hide-scrollbars", "--force-color-profile=srgb",
)  # fmt: skip
_SETTLE_S = 1.0
"""For the page's own code to take in what was typed."""
_START = "import os, sys; os.dup2({read}, 3); os.dup2({write}, 4); os.execvp(sys.argv[1], sys.argv[1:])"
"""Chromium reads commands from descriptor 3 and answers on 4."""


def lacks_browser() -> str:
    """Why there is no browser; empty if there is one."""
    if any(shutil.which(name) for name in _NAMES):
        return ""
    return "no Chromium is installed (Debian: apt-get install chromium)"


class Page:
    """One tab."""

    def __init__(self, send: int, receive: int) -> None:
        self._send, self._receive = os.fdopen(send, "wb"), os.fdopen(receive, "rb")
        self._count, self._session, self._rest = 0, None, b""
        self.errors: list[str] = []
        """What the page's own code threw, uncaught."""
        target = self._call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self._call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        self._call("Page.enable")
        self._call("Runtime.enable")

    def size(self, width: int, height: int) -> None:
        """Of the window, in pixels."""
        self._call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)

    def open(self, address: str) -> None:
        """Go there; a change behind the # alone loads the page anew too."""
        self._call("Page.navigate", url="about:blank")
        self._call("Page.navigate", url=address)

    def run(self, script: str) -> Any:
        """The value of a JavaScript expression."""
        done = self._call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in done:
            raise AssertionError(done["exceptionDetails"].get("exception", {}).get("description", "the script failed"))
        return done["result"].get("value")

    def until(self, script: str, what: str, seconds: float = 240.0) -> Any:
        """Wait until an expression is true; its value."""
        end = time.monotonic() + seconds
        while True:
            with suppress(AssertionError):
                if value := self.run(script):
                    return value
            if time.monotonic() > end:
                raise AssertionError(f"never came: {what}. The page says: {self.text()[:3000]}")
            time.sleep(0.2)

    def text(self) -> str:
        """What is to be read."""
        return str(self.run("document.body ? document.body.innerText : ''"))

    def until_text(self, *texts: str) -> None:
        """Wait until all of these can be read."""
        for text in texts:
            self.until(f"document.body.innerText.includes({json.dumps(text)})", f"the text {text!r}")

    def click(self, selector: str, text: str | None = None) -> None:
        """Click the first visible element that matches and, if given, reads exactly `text`."""
        place = self.until(_PLACE % (json.dumps(selector), json.dumps(text)), f"{selector} reading {text!r}")
        for kind in ("mouseMoved", "mousePressed", "mouseReleased"):
            button = {} if kind == "mouseMoved" else {"button": "left", "clickCount": 1}
            self._call("Input.dispatchMouseEvent", type=kind, x=place[0], y=place[1], **button)

    def fill(self, selector: str, text: str) -> None:
        """Put `text` into a field and press Enter; suggestions that open under it are closed first."""
        self.click(selector)
        self.until("document.activeElement.value !== undefined", f"{selector} takes text")
        self.run("document.activeElement.select()")
        self._call("Input.insertText", text=text)
        self.until(f"document.activeElement.value === {json.dumps(text)}", f"{text!r} in the field")
        time.sleep(_SETTLE_S)
        for name, code, typed in (("Escape", 27, ""), ("Enter", 13, "\r")):
            key = {"key": name, "code": name, "windowsVirtualKeyCode": code}
            self._call("Input.dispatchKeyEvent", type="keyDown", text=typed, **key)
            self._call("Input.dispatchKeyEvent", type="keyUp", **key)

    def picture(self) -> bytes:
        """The window as PNG."""
        return base64.b64decode(self._call("Page.captureScreenshot", format="png")["data"])

    def _call(self, method: str, **params: Any) -> dict[str, Any]:
        self._count += 1
        message = {"id": self._count, "method": method, "params": params}
        if self._session is not None:
            message["sessionId"] = self._session
        self._send.write(json.dumps(message).encode() + b"\0")
        self._send.flush()
        while True:
            answer = self._next()
            if answer.get("method") == "Runtime.exceptionThrown":
                details = answer["params"]["exceptionDetails"]
                self.errors.append(details.get("exception", {}).get("description", details["text"]))
            if answer.get("id") == self._count:
                if "error" in answer:
                    raise AssertionError(f"{method}: {answer['error']['message']}")
                return dict(answer["result"])

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            more = self._receive.read1(1 << 20)
            if not more:
                raise AssertionError("the browser is gone")
            self._rest += more
        message, self._rest = self._rest.split(b"\0", 1)
        return dict(json.loads(message))


_PLACE = """(() => {
  const wanted = %s, text = %s;
  for (const element of document.querySelectorAll(wanted)) {
    const box = element.getBoundingClientRect();
    if (box.width === 0 || box.height === 0) continue;
    if (text !== null && element.innerText.trim() !== text) continue;
    element.scrollIntoView({block: 'center'});
    const now = element.getBoundingClientRect();
    return [now.x + now.width / 2, now.y + now.height / 2];
  }
  return null;
})()"""


@contextmanager
def browser() -> Iterator[Page]:
    """A page in a browser with a profile of its own; both are gone at the end."""
    program = next(filter(None, map(shutil.which, _NAMES)))
    to_child, ours = os.pipe()
    theirs, from_child = os.pipe()
    # Away from 3 and 4, which the child's ends become.
    read, write = (fcntl.fcntl(end, fcntl.F_DUPFD, 20) for end in (to_child, from_child))
    for end in (to_child, from_child):
        os.close(end)
    with tempfile.TemporaryDirectory(prefix="ontogeny-browser-", ignore_cleanup_errors=True) as home:
        starter = [sys.executable, "-c", _START.format(read=read, write=write), program, *_FLAGS]
        process = subprocess.Popen(
            [*starter, f"--user-data-dir={home}/profile", "about:blank"], env=os.environ | {"HOME": home},
            pass_fds=(read, write), start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        os.close(read)
        os.close(write)
        try:
            yield Page(ours, theirs)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def save(picture: bytes, folder: str | Path | None, name: str) -> None:
    """Keep a screenshot if a folder is asked for."""
    if folder:
        Path(folder).mkdir(parents=True, exist_ok=True)
        Path(folder, f"{name}.png").write_bytes(picture)
