"""Who is told to wait for whom, by locks of real files."""

from __future__ import annotations

from pathlib import Path

import pytest
from ansible_collections.cryptopip.marketdata.plugins.module_utils.tuned_restore.lock import dumping, locked
from ansible_collections.cryptopip.marketdata.plugins.module_utils.tuned_restore.run import AtWorkError, RestoreError


def refusal(work: Path) -> RestoreError:
    """What a restore is told that would begin now."""
    with pytest.raises(RestoreError) as told, locked(work, check=False):
        pass
    return told.value


def test_another_restore_or_dump_is_told_that_a_restore_is_at_work(tmp_path: Path) -> None:
    with locked(tmp_path, check=False):
        refused = refusal(tmp_path)
        assert isinstance(refused, AtWorkError)
        assert "another restore is at work" in str(refused)
        with pytest.raises(AtWorkError, match="a restore is at work"), dumping(tmp_path, check=False):
            pass


def test_a_dump_keeps_restores_out_and_is_not_taken_for_one(tmp_path: Path) -> None:
    with dumping(tmp_path, check=False):
        refused = refusal(tmp_path)
    assert not isinstance(refused, AtWorkError)
    assert "a dump or a base backup is at work" in str(refused)
    with locked(tmp_path, check=False):
        pass
