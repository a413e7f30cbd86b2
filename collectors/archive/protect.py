"""Up to when the archive holds everything, for ingestors to prune by: rows of the datalake's table ``protections``."""

from __future__ import annotations

from datetime import datetime

from collectors.archive.database import session
from collectors.archive.errors import ArchiveError
from collectors.archive.verify import Checked, Finding
from collectors.datalake import missing_relations


def held_until(checked: list[Checked], lacking: list[Finding]) -> datetime | None:
    """The moment before which everything that was merged is in the archive, whichever month it belongs to.

    Ingestors ask for one moment, not one for each month, since rows of any month may come late. So it is the earliest
    of all months, and none where one is not whole, or the datalake has a month that the archive has not.
    """
    moments = [one.held_until for one in checked]
    if lacking or not moments or None in moments:
        return None
    return min(moment for moment in moments if moment is not None)


def protect(conninfo: str, checked: list[Checked], lacking: list[Finding]) -> datetime | None:
    """Write what ``held_until`` says, a row for each month; returns up to when ingestors may now rely on the archive.

    An earlier moment never takes the place of a later one that was promised: files only gain rows. Where a file is
    damaged, or a month that was promised is gone from the archive, all promises are taken back. ``conninfo`` is that
    of a login that may write ``protections``.
    """
    until = held_until(checked, lacking)
    damaged = not all(one.whole for one in checked)
    with session(conninfo, "protect") as connection, connection.transaction():
        if missing_relations(connection, ["protections"]):
            raise ArchiveError(
                f"the database {connection.info.dbname} has no protections: give the conninfo of the datalake, or run"
                " playbooks/migrate.yml"
            )
        # One writer at a time; readers are not kept waiting.
        connection.execute("LOCK TABLE protections IN SHARE ROW EXCLUSIVE MODE")
        row = connection.execute(
            "SELECT max(protected_until), array_agg(name) FROM protections WHERE source = 'archive'"
        ).fetchone()
        assert row is not None
        is_lost = not {*(row[1] or [])} <= {one.month for one in checked}
        promised = None if damaged or is_lost else row[0]
        moments = [moment for moment in (until, promised) if moment is not None]
        best = max(moments) if moments else None
        connection.execute("DELETE FROM protections WHERE source = 'archive'")
        if best is not None:
            connection.cursor().executemany(
                "INSERT INTO protections (source, name, protected_until) VALUES ('archive', %s, %s)",
                [(one.month, best) for one in checked],
            )
    return best
