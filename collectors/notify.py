"""Telling systemd how a long-running command is: ready, alive, stopping (sd_notify(3), read 2026-11)."""

from __future__ import annotations

import os
import socket

STALLED_SECONDS = 3600
"""After how long without a step forward such a command is ended: longer than any one transaction of it takes."""


class Notifier:
    """Sends states to the socket systemd names in NOTIFY_SOCKET; without one every call does nothing.

    The watchdog must be fed by the loop that does the real work: a timer of its own would go on while the work hangs.
    """

    def __init__(self, address: str | None = None) -> None:
        """``address`` is a path, or ``@name`` for an abstract socket; by default that of the environment."""
        self._address = address if address is not None else os.environ.get("NOTIFY_SOCKET", "")
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) if self._address else None
        if self._socket is not None:
            # A full receive queue must not stop the work; a lost watchdog ping is followed by the next.
            self._socket.setblocking(False)

    def ready(self) -> None:
        """The service does its work from here on."""
        self._send("READY=1")

    def watchdog(self) -> None:
        """The work has moved on since the last call."""
        self._send("WATCHDOG=1")

    def moved_on(self) -> None:
        """The same of a command that ends when its work is done (``Type=oneshot``, which has no watchdog).

        Its time to start, which is its whole life, is counted anew from now, STALLED_SECONDS long.
        """
        self._send(f"EXTEND_TIMEOUT_USEC={STALLED_SECONDS * 1_000_000}")

    def stopping(self) -> None:
        """The service is on its way to a clean end."""
        self._send("STOPPING=1")

    def status(self, text: str) -> None:
        """One line for ``systemctl status``."""
        self._send("STATUS=" + text.replace("\n", " "))

    def close(self) -> None:
        """Give the socket back; later calls do nothing."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _send(self, state: str) -> None:
        if self._socket is None:
            return
        address = "\0" + self._address[1:] if self._address.startswith("@") else self._address
        try:
            self._socket.sendto(state.encode(), address)
        except (BlockingIOError, ConnectionRefusedError, FileNotFoundError):
            # systemd is restarting or behind; it asks for nothing in between that the next message would not tell.
            return
