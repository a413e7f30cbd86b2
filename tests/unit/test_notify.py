from __future__ import annotations

import socket
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from collectors.notify import Notifier


@pytest.fixture(params=["path", "abstract"])
def systemd(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[str, socket.socket]]:
    """The address to put into NOTIFY_SOCKET, and the socket systemd would read."""
    receiver = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    if request.param == "path":
        address = str(tmp_path / "notify")
        receiver.bind(address)
    else:
        address = f"@{uuid.uuid4()}"
        receiver.bind("\0" + address[1:])
    receiver.settimeout(5)
    with receiver:
        yield address, receiver


def test_states_reach_systemd(systemd: tuple[str, socket.socket], monkeypatch: pytest.MonkeyPatch) -> None:
    address, receiver = systemd
    monkeypatch.setenv("NOTIFY_SOCKET", address)
    notifier = Notifier()
    notifier.ready()
    notifier.watchdog()
    notifier.moved_on()
    notifier.status("2 lines\nin one")
    notifier.stopping()
    received = [receiver.recv(100) for _ in range(5)]
    assert received == [
        b"READY=1",
        b"WATCHDOG=1",
        b"EXTEND_TIMEOUT_USEC=3600000000",
        b"STATUS=2 lines in one",
        b"STOPPING=1",
    ]
    notifier.close()
    notifier.ready()


def test_without_systemd_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    Notifier().ready()


def test_a_receiver_that_does_not_read_never_blocks_the_work(systemd: tuple[str, socket.socket]) -> None:
    address, receiver = systemd
    notifier = Notifier(address)
    for _ in range(10_000):  # far more than the socket's queue holds
        notifier.watchdog()
    assert receiver.recv(100) == b"WATCHDOG=1"


def test_a_receiver_that_is_gone_does_not_end_the_work(tmp_path: Path) -> None:
    Notifier(str(tmp_path / "nobody")).ready()
