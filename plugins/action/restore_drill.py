"""Runs the module of the same name in the background of the host and shows how far it is."""

from __future__ import annotations

from ansible_collections.cryptopip.marketdata.plugins.plugin_utils.background import BackgroundAction


class ActionModule(BackgroundAction):
    """Runs on the control node."""

    WORK_PATH = "/var/lib/cryptopip/backup"
