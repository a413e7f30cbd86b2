"""Runs the module of the same name in the background of the host and shows how far it is; a mere list runs at once."""

from __future__ import annotations

from ansible_collections.cryptopip.marketdata.plugins.plugin_utils.background import BackgroundAction


class ActionModule(BackgroundAction):
    """Runs on the control node."""

    WORK_PATH = "/var/lib/cryptopip/backup"

    def is_quick(self) -> bool:
        """Listing only asks."""
        return bool(self._task.args.get("state", "present") == "listed")
