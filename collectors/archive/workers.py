"""Work of one kind, done by several sessions at once."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import AbstractContextManager
from typing import TypeVar

Session = TypeVar("Session")
Task = TypeVar("Task")


def in_parallel(
    tasks: Iterable[Task],
    jobs: int,
    open_session: Callable[[], AbstractContextManager[Session]],
    work: Callable[[Session, Task], None],
) -> None:
    """Do every task, up to ``jobs`` at once, each job in a session of its own; none is opened where there is no task.

    After a failure no task is begun; it is raised once those under way have ended.
    """
    waiting = deque(tasks)
    if not waiting:
        return

    def job() -> None:
        with open_session() as session:
            while (task := _taken(waiting)) is not None:
                work(session, task)

    with ThreadPoolExecutor(min(jobs, len(waiting))) as pool:
        running = [pool.submit(job) for _ in range(min(jobs, len(waiting)))]
        try:
            wait(running, return_when=FIRST_EXCEPTION)
        finally:
            waiting.clear()
    for one in running:
        one.result()


def _taken(waiting: deque[Task]) -> Task | None:
    try:
        return waiting.popleft()
    except IndexError:
        return None
