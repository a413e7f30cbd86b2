"""Processes of the product, started as an operator starts them, killed as no operator should."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar
from urllib.request import Request, urlopen

ROOT = Path(__file__).resolve().parent.parent.parent.parent
T = TypeVar("T")


def until(state: Callable[[], T], what: str, seconds: float = 60.0, pause: float = 0.05) -> T:
    """Wait for something true and return it; raises AssertionError naming what did not come."""
    deadline = time.monotonic() + seconds
    while not (value := state()):
        assert time.monotonic() < deadline, f"{what}: not within {seconds:.0f} s"
        time.sleep(pause)
    return value


class Process:
    """One ``cryptopip`` process with its log; the process itself, no wrapper around it."""

    def __init__(self, log: Path, *arguments: str) -> None:
        self.name = f"{log.stem}: cryptopip {' '.join(arguments[:2])}"
        self.log = log
        with log.open("ab") as output:
            self._popen = subprocess.Popen(
                [sys.executable, "-m", "collectors", *arguments], cwd=ROOT, stdout=subprocess.PIPE, stderr=output
            )

    @property
    def pid(self) -> int:
        return self._popen.pid

    def is_alive(self) -> bool:
        return self._popen.poll() is None

    def first_line(self) -> str:
        """The first line of standard output; raises AssertionError with the log where the process ended instead."""
        assert self._popen.stdout is not None
        line = self._popen.stdout.readline()
        assert line, f"{self.name} ended: {self.tail()}"
        return line.decode()

    def kill_within(self, seconds: float) -> bool:
        """SIGKILL after so long; False where it had already finished, which must have been without an error."""
        try:
            code = self._popen.wait(seconds)
        except subprocess.TimeoutExpired:
            self.kill()
            return True
        assert code == 0, f"{self.name} ended with {code}: {self.tail()}"
        return False

    def kill(self) -> None:
        """SIGKILL, and wait until it is gone."""
        assert self.is_alive(), f"{self.name} was dead before it was killed: {self.tail()}"
        self._popen.kill()
        self._popen.wait()

    def finish(self, seconds: float = 120) -> None:
        """Wait for the end; raises AssertionError with the log where it was not exit code 0."""
        code = self._popen.wait(seconds)
        assert code == 0, f"{self.name} ended with {code}: {self.tail()}"

    def stop(self, seconds: float = 60) -> None:
        """SIGTERM, and wait for an orderly end."""
        self._popen.terminate()
        self.finish(seconds)

    def destroy(self) -> None:
        """Whatever it is doing, end it: for clearing up."""
        if self.is_alive():
            self._popen.kill()
            self._popen.wait()
        if self._popen.stdout is not None:
            self._popen.stdout.close()

    def tail(self) -> str:
        """The end of its log."""
        return self.log.read_text(errors="replace")[-3000:]


class Exchange:
    """A simulated exchange in a process of its own, with a listener for each ingestor."""

    def __init__(
        self,
        folder: Path,
        listeners: list[str],
        *,
        symbols: list[str],
        rate: float,
        levels: int,
        seed: int,
        exchange: str = "binance",
        history: int = 100_000,
    ) -> None:
        self.name = exchange
        self.truth_folder = folder / "truth"
        arguments = ["simulate", "--exchange", exchange, "--control", "127.0.0.1:0", "--truth", str(self.truth_folder)]
        arguments += ["--rate", str(rate), "--levels", str(levels), "--seed", str(seed)]
        arguments += ["--history", str(history)]
        for symbol in symbols:
            arguments += ["--symbol", symbol]
        for name in listeners:
            arguments += ["--listen", f"{name}=127.0.0.1:0"]
        self.process = Process(folder / "exchange.log", *arguments)
        self.urls: dict[str, str] = json.loads(self.process.first_line())

    def rest(self, listener: str) -> str:
        return self.urls[listener]

    def ws(self, listener: str) -> str:
        return self.urls[listener].replace("http", "ws", 1)

    def status(self) -> dict[str, Any]:
        return self._call("GET", "/status")  # type: ignore[no-any-return]

    def streams(self, listener: str) -> list[str]:
        """The streams some client of the listener is subscribed to."""
        return list(self.status()["listeners"][listener]["streams"])

    def acknowledged(self, listener: str) -> dict[str, int]:
        """When each stream was subscribed to last, ns since 1970."""
        return dict(self.status()["listeners"][listener]["acknowledged"])

    def fault(self, kind: str, listener: str, **fields: Any) -> None:
        self._call("POST", "/faults", {"kind": kind, "listener": listener, **fields})

    def faults(self, listener: str) -> dict[str, int]:
        """How often each kind of fault was applied on a listener."""
        counts: dict[str, int] = {}
        for key, n in self.status()["faults"].items():
            where, kind = key.split(" ")
            if where == listener:
                counts[kind] = n
        return counts

    def clear_faults(self) -> None:
        self._call("DELETE", "/faults")

    def pause(self) -> None:
        """No more trading; the truth is complete on disk."""
        self._call("POST", "/pause")

    def _call(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = Request(self.urls["control"] + path, data=data, method=method)
        with urlopen(request, timeout=30) as reply:
            return json.loads(reply.read())
