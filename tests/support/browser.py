"""A headless Chromium, driven over the DevTools pipe: no driver program and no WebSocket needed."""

from __future__ import annotations

import base64
import fcntl
import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--mute-audio", "--disable-dev-shm-usage", "--remote-debugging-pipe",
)  # fmt: skip


def find_chromium() -> str | None:
    """Return the path of a Chromium, or None."""
    return next(
        (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
    )


class Browser:
    """One browser with one page."""

    def __init__(self, *flags: str, width: int = 1280, height: int = 800) -> None:
        program = find_chromium()
        assert program is not None
        # Its profile, and what it makes in the folder for temporary files and leaves there.
        self._folder = tempfile.mkdtemp(prefix="mist-chromium-")
        read_commands, self._commands = os.pipe()
        self._answers, write_answers = os.pipe()
        self.console: list[str] = []
        self._buffer = b""
        self._number = 0
        # The program reads commands from descriptor 3 and writes to 4; ours must not be one of these.
        theirs = fcntl.fcntl(read_commands, fcntl.F_DUPFD, 64), fcntl.fcntl(write_answers, fcntl.F_DUPFD, 64)
        self._process = subprocess.Popen(
            [
                program,
                *FLAGS,
                *flags,
                f"--user-data-dir={self._folder}/profile",
                f"--window-size={width},{height}",
                "about:blank",
            ],
            pass_fds=(3, 4),
            preexec_fn=lambda: (os.dup2(theirs[0], 3), os.dup2(theirs[1], 4)),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "TMPDIR": self._folder},
            start_new_session=True,
        )
        for fd in theirs:
            os.close(fd)
        os.close(read_commands)
        os.close(write_answers)
        self._session: str | None = None
        target = self.command("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.command("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self.command(f"{domain}.enable")
        self.resize(width, height)

    def resize(self, width: int, height: int) -> None:
        """Give the page another size."""
        self.command(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False
        )

    def command(self, method: str, **parameters: Any) -> Any:
        """Send a command and return its result."""
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": parameters}
        if self._session is not None:
            message["sessionId"] = self._session
        os.write(self._commands, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._read()
            if answer.get("id") == self._number:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']}")
                return answer["result"]

    def _read(self) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            piece = os.read(self._answers, 1 << 20)
            if not piece:
                raise RuntimeError("the browser has ended")
            self._buffer += piece
        line, _, self._buffer = self._buffer.partition(b"\0")
        message: dict[str, Any] = json.loads(line)
        if message.get("method") == "Runtime.exceptionThrown":
            details = message["params"]["exceptionDetails"]
            self.console.append(str(details.get("exception", {}).get("description", details.get("text"))))
        elif message.get("method") == "Log.entryAdded":
            self.console.append(f"{message['params']['entry']['text']} {message['params']['entry'].get('url', '')}")
        return message

    def open(self, url: str) -> None:
        """Load a page."""
        self.command("Page.navigate", url=url)

    def evaluate(self, expression: str) -> Any:
        """Return the value of a JavaScript expression; a promise is awaited."""
        result = self.command(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True, userGesture=False
        )
        if "exceptionDetails" in result:
            raise RuntimeError(str(result["exceptionDetails"]))
        return result["result"].get("value")

    def wait_for(self, expression: str, timeout_s: float = 20.0, accept: Callable[[Any], bool] = bool) -> Any:
        """Evaluate until the value is accepted; fails with the last value and the page's messages."""
        end = time.monotonic() + timeout_s
        while True:
            value = self.evaluate(expression)
            if accept(value):
                return value
            if time.monotonic() > end:
                raise AssertionError(f"{expression} is {value!r}; console: {self.console}")
            time.sleep(0.1)

    def press(self, key: str) -> None:
        """Press and release a key, as a user does."""
        for kind in ("keyDown", "keyUp"):
            extra = {"text": key} if kind == "keyDown" and len(key) == 1 else {}
            self.command("Input.dispatchKeyEvent", type=kind, key=key, **extra)

    def move(self, x: int, y: int) -> None:
        """Move the mouse."""
        self.command("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)

    def click(self, x: int, y: int) -> None:
        """Click with the mouse, as a user does."""
        for kind in ("mousePressed", "mouseReleased"):
            self.command("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def screenshot(self, path: Path) -> bytes:
        """Write a picture of the page as PNG and return it."""
        data = base64.b64decode(self.command("Page.captureScreenshot", format="png")["data"])
        path.write_bytes(data)
        return data

    def close(self) -> None:
        """End the browser."""
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)  # its helpers would write into the profile again
        os.close(self._commands)
        os.close(self._answers)
        shutil.rmtree(self._folder, ignore_errors=True)
