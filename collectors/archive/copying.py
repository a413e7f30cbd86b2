"""What a COPY sends, in large pieces of whole rows."""

from __future__ import annotations

from collections.abc import Generator
from select import POLLIN, poll
from typing import Any

import psycopg
from psycopg import sql
from psycopg.errors import error_from_result
from psycopg.pq import ExecStatus
from psycopg.pq.abc import PGconn, PGresult


def copy_out(
    connection: psycopg.Connection[Any], query: sql.Composed, block_bytes: int
) -> Generator[tuple[bytearray, int]]:
    """Blocks of the bytes that a COPY gives, and the rows in each; about ``block_bytes`` each, the last one less.

    Asks libpq itself, since psycopg's own way takes twice as long for a row, and this loop is most of what an archive
    costs on this side. Whoever closes it early leaves a failed transaction, to be rolled back (to a savepoint).
    """
    libpq = connection.pgconn
    _expect(libpq.exec_(query.as_bytes(connection)), ExecStatus.COPY_OUT)
    arrived = poll()
    arrived.register(libpq.socket, POLLIN)
    next_row, block, rows, total = libpq.get_copy_data, bytearray(), 0, 0
    try:
        while True:
            size, row = next_row(1)
            if size > 0:
                block += row
                rows += 1
                if len(block) < block_bytes:
                    continue
                yield block, rows
                block, total, rows = bytearray(), total + rows, 0
            elif size == 0:
                arrived.poll()
                libpq.consume_input()
            else:
                break
    except GeneratorExit:
        _give_up(connection)
        raise
    done = _expect(libpq.get_result(), ExecStatus.COMMAND_OK)
    libpq.get_result()  # there is no other, and only then may the next statement come
    assert done.command_tuples == total + rows, "the server sends a message a row"
    yield block, rows


def _give_up(connection: psycopg.Connection[Any]) -> None:
    libpq: PGconn = connection.pgconn
    connection.cancel_safe()
    while libpq.get_copy_data(0)[0] > 0:
        pass  # what was on its way
    while libpq.get_result() is not None:
        pass


def _expect(result: PGresult | None, status: ExecStatus) -> PGresult:
    assert result is not None, "a statement that was sent has a result"
    if result.status != status:
        raise error_from_result(result)
    return result
