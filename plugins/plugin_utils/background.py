"""Runs a module in the background of the host and shows the line by which it tells how far it is.

What was begun does not end with the connection that began it. In check mode, or where the task has an ``async`` of its
own, the module runs as any other.
"""

from __future__ import annotations

import base64
import time
from typing import Any

from ansible.plugins.action import ActionBase
from ansible.utils.display import Display

LIMIT_S = 30 * 86400
POLL_S = 3.0
FIRST_POLL_S = 0.3
"""The pause grows from this to ``POLL_S``, so that short work is seen too and long work costs little."""
_ASYNC_KEYS = (
    *("ansible_job_id", "started", "finished", "results_file"),
    *("stdout", "stderr", "stdout_lines", "stderr_lines"),
)


class BackgroundAction(ActionBase):  # type: ignore[misc]  # Ansible has no type hints
    """Runs on the control node. The module writes its line into the file ``progress`` of ``work_path``."""

    WORK_PATH: str
    """The module's default of its option ``work_path``."""

    def is_quick(self) -> bool:
        """Whether the task is over before there is anything to tell of."""
        return False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """The module's result."""
        super().run(tmp, task_vars)
        if self._task.check_mode or self._task.async_val or self.is_quick():
            plain: dict[str, Any] = self._execute_module(task_vars=task_vars, wrap_async=self._task.async_val)
            return plain
        self._task.async_val = LIMIT_S
        try:
            result: dict[str, Any] = self._execute_module(task_vars=task_vars, wrap_async=True)
        finally:
            self._task.async_val = 0
        job = result.get("ansible_job_id")
        if not job:
            return result
        said, pause = "", FIRST_POLL_S
        while not result.get("finished") and not result.get("failed"):
            time.sleep(pause)
            pause = min(pause * 1.5, POLL_S)
            result = self._status(job, "status", task_vars)
            line = self._line(task_vars)
            if line and line != said:
                said = line
                Display().display(f"  {line}")
        self._status(job, "cleanup", task_vars)
        for key in _ASYNC_KEYS:
            result.pop(key, None)
        return result

    def _status(self, job: str, mode: str, task_vars: dict[str, Any] | None) -> dict[str, Any]:
        folder = self.get_shell_option("async_dir", default="~/.ansible_async")
        answer: dict[str, Any] = self._execute_module(
            module_name="ansible.legacy.async_status",
            module_args={"jid": job, "mode": mode, "_async_dir": folder},
            task_vars=task_vars,
            wrap_async=False,
        )
        return answer

    def _line(self, task_vars: dict[str, Any] | None) -> str:
        folder = self._task.args.get("work_path") or self.WORK_PATH
        answer = self._execute_module(
            module_name="ansible.legacy.slurp",
            module_args={"src": f"{folder}/progress"},
            task_vars=task_vars,
            wrap_async=False,
        )
        return base64.b64decode(answer.get("content", "")).decode(errors="replace").strip()
