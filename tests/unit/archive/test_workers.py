"""Work shared out among sessions: each task once, and none after a failure."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from collectors.archive.workers import in_parallel


class Sessions:
    """Counts those that are open."""

    def __init__(self) -> None:
        self.open = 0
        self.most = 0
        self.lock = threading.Lock()

    @contextmanager
    def __call__(self) -> Iterator[int]:
        with self.lock:
            self.open += 1
            self.most = max(self.most, self.open)
        try:
            yield threading.get_ident()
        finally:
            with self.lock:
                self.open -= 1


@pytest.mark.parametrize("jobs", [1, 2, 5])
def test_every_task_is_done_once_by_as_many_sessions_as_asked(jobs: int) -> None:
    sessions, done = Sessions(), list[int]()
    all_at_work = threading.Barrier(jobs)

    def work(_: int, task: int) -> None:
        if task < jobs:
            all_at_work.wait(10)  # the first tasks end only once every session has one
        done.append(task)

    in_parallel(range(100), jobs, sessions, work)
    assert sorted(done) == list(range(100))
    assert (sessions.most, sessions.open) == (jobs, 0)


def test_without_a_task_no_session_is_opened() -> None:
    sessions = Sessions()
    in_parallel([], 3, sessions, lambda session, task: None)
    assert sessions.most == 0


def test_a_failure_is_raised_and_no_task_begun_after_it() -> None:
    sessions, done, failed = Sessions(), list[int](), threading.Event()

    def work(_: int, task: int) -> None:
        if task == 0:
            failed.set()
            raise ValueError("task 0")
        failed.wait(10)
        done.append(task)

    with pytest.raises(ValueError, match="task 0"):
        in_parallel(range(100_000), 2, sessions, work)
    assert len(done) < 99_999
    assert sessions.open == 0
