"""Carries the migrations from the control node to the host, then runs the module of the same name there."""

from __future__ import annotations

import io
import tarfile
import tempfile
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleActionFail, AnsibleError
from ansible.plugins.action import ActionBase

COLLECTION = Path(__file__).resolve().parents[2]


def pack(folder: Path) -> bytes:
    """A tar file of the .sql files in a folder: one transfer, however many migrations there are."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for file in sorted(folder.glob("*.sql")):
            archive.add(file, arcname=file.name)
    return packed.getvalue()


class ActionModule(ActionBase):  # type: ignore[misc]  # Ansible has no type hints
    """Runs on the control node."""

    TRANSFERS_FILES = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """The module's result. Raises AnsibleActionFail where the folder of migrations is not there."""
        super().run(tmp, task_vars)  # makes the folder for transfers on the host
        remote_folder = self._connection._shell.tmpdir
        try:
            arguments = dict(self._task.args)
            if not arguments.get("path"):
                folder = self._folder(arguments.pop("src", None), arguments.get("kind"))
                arguments["path"] = self._carry(pack(folder), remote_folder)
            result: dict[str, Any] = self._execute_module(module_args=arguments, task_vars=task_vars)
        finally:
            self._remove_tmp_path(remote_folder)
        return result

    def _carry(self, packed: bytes, remote_folder: str) -> str:
        remote: str = self._connection._shell.join_path(remote_folder, "migrations.tar")
        with tempfile.NamedTemporaryFile(suffix=".tar") as local:
            local.write(packed)
            local.flush()
            self._transfer_file(local.name, remote)
        self._fixup_perms2((remote_folder, remote))
        return remote

    def _folder(self, src: str | None, kind: str | None) -> Path:
        if src is None:
            folder = COLLECTION / "files" / "sql" / str(kind)
        else:
            try:
                folder = Path(self._find_needle("files", src))
            except AnsibleError as error:
                raise AnsibleActionFail(f"src: no folder {src} beside the play or role: {error}") from error
        if not folder.is_dir():
            raise AnsibleActionFail(
                f"no folder {folder} with migrations: expected kind to be ingestor, datalake or app, or src to be a "
                "folder on the control node"
            )
        return folder
