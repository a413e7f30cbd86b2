"""Runs the module of the same name in the background of the host and shows how far it is; unless it is quick."""

from __future__ import annotations

from ansible_collections.cryptopip.marketdata.plugins.plugin_utils.background import BackgroundAction


class ActionModule(BackgroundAction):
    """Runs on the control node."""

    WORK_PATH = "/var/lib/cryptopip/restore"

    def is_quick(self) -> bool:
        """Listing and removing move no data."""
        return self._task.args.get("state", "present") in {"listed", "absent"}
