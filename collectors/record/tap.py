"""Frames straight out of the bytes a socket gives, before aiohttp makes messages of them.

A plain frame (whole, not compressed) is cut out here: several times cheaper than a message of aiohttp's and a turn of
the event loop for it. All other frames go to aiohttp's own reader: control frames, which ccxt answers, fragments and
compressed ones, whose data comes back here. aiohttp's version is pinned: what is used of its inside is in this file.
"""

from __future__ import annotations

import time
from functools import partial
from struct import Struct
from typing import Any, Final, Protocol

from aiohttp import ClientWebSocketResponse, WSMsgType
from aiohttp._websocket.reader import WebSocketDataQueue, WebSocketReader

_TEXT: Final = 0x81  # RFC 6455, 5.2: a text's last fragment, which is its first too
_BINARY: Final = 0x82
_LENGTH_IN_2: Final = 126
_LENGTH_IN_8: Final = 127
_header: Final = Struct(">BBH").unpack_from  # kind, length, the length again where that is 126
_SHORT: Final = (0, 255, 0)
_AT_ONCE: Final = 256  # texts: what is done with so many finds them in the processor's cache
_ALL_TAKEN: Final = (False, b"")
_BROKEN: Final = (True, b"")
_LARGEST: Final = 4 << 20  # aiohttp's own, where it is given none


class Sink(Protocol):
    """Who is given what the exchange sends; ``now`` is when it was received, ns. Must not raise."""

    def texts(self, now: int, payloads: list[bytes]) -> None:
        """Texts, in order."""

    def binary(self, now: int, payload: bytes) -> None:
        """What was sent as binary."""


class FrameSplitter:
    """Stands for aiohttp's reader of one socket. ``largest``: bytes of a frame, beyond which aiohttp's is to refuse."""

    def __init__(self, sink: Sink, reader: WebSocketReader, largest: int) -> None:
        self._sink = sink
        self._texts = sink.texts
        self._reader = reader
        self._largest = largest
        self._held: list[bytes] = []  # the beginning of a frame
        self._lacking = 0  # bytes of that frame, as far as its header tells
        self._is_given_up = False

    def feed_eof(self) -> None:
        """The exchange closed its side."""
        self._reader.feed_eof()

    def feed_data(self, data: bytes) -> tuple[bool, bytes]:
        """Take what one read of the socket gave; true where it breaks the protocol, of which aiohttp tells then."""
        if self._is_given_up:
            return self._reader.feed_data(data)
        if self._held:
            data = self._joined(data)
        now = time.time_ns()
        texts: list[bytes] = []
        at, end, header = 0, len(data), _header
        while at < end:
            kind, length, more = header(data, at) if at + 4 <= end else _SHORT
            if length < _LENGTH_IN_2:
                start = at + 2
                stop = start + length
            elif length == _LENGTH_IN_2:
                start = at + 4
                stop = start + more
            else:
                start, stop = self._uncommon(data, at, end)
            if stop > end:
                break
            if kind == _TEXT:
                texts.append(data[start:stop])
            else:
                if not self._is_taken(now, texts, data[at:stop], start - at):
                    return _BROKEN
                texts = []
                now = time.time_ns()  # the reader may have given something with a time of its own
            at = stop
        if len(texts) > _AT_ONCE:
            self._give(now, texts)
        elif texts:
            self._texts(now, texts)
        return _ALL_TAKEN if at == end else self._hold(data[at:], stop - end)

    def _hold(self, rest: bytes, lacking: int) -> tuple[bool, bytes]:
        """Keep the beginning of a frame until the rest of it is there."""
        if self._is_given_up:
            return self._reader.feed_data(rest)
        self._held.append(rest)
        self._lacking = lacking
        return _ALL_TAKEN

    def _joined(self, data: bytes) -> bytes:
        """What is held with this behind it; nothing as long as the frame lacks more: so each byte is copied once."""
        self._held.append(data)
        self._lacking -= len(data)
        if self._lacking > 0:
            return b""
        joined = b"".join(self._held)
        self._held.clear()
        return joined

    def _is_taken(self, now: int, texts: list[bytes], frame: bytes, start: int) -> bool:
        """Give on a frame that is no plain text, behind the texts before it; false where it breaks the protocol."""
        self._give(now, texts)
        if frame[0] == _BINARY:
            self._sink.binary(now, frame[start:])
            return True
        self._is_given_up = self._reader.feed_data(frame)[0]
        return not self._is_given_up

    def _uncommon(self, data: bytes, at: int, end: int) -> tuple[int, int]:
        """Where the payload of a frame begins and ends; an end behind that of the data where that tells too little."""
        if at + 2 > end:
            return at, at + 2
        length, start = data[at + 1], at + 2
        if length == _LENGTH_IN_2:
            start = at + 4
        elif length == _LENGTH_IN_8:
            start = at + 10
        if start > end:
            return at, start
        if start > at + 2:
            length = int.from_bytes(data[at + 2 : start], "big")
        elif length > _LENGTH_IN_8:  # masked, as no server may send it
            self._is_given_up = True
            return at, end + 1
        if length > self._largest:
            self._is_given_up = True
            return at, end + 1
        return start, start + length

    def _give(self, now: int, texts: list[bytes]) -> None:
        for first in range(0, len(texts), _AT_ONCE):
            self._texts(now, texts[first : first + _AT_ONCE])


class DataToSink(WebSocketDataQueue):
    """Where aiohttp's reader puts messages: data goes to the sink, all else to the queue that ``receive`` reads."""

    def __init__(self, sink: Sink, control: WebSocketDataQueue, protocol: Any, loop: Any) -> None:
        super().__init__(protocol, _LARGEST, loop=loop)
        self._sink = sink
        self._control = control

    def feed_data(self, message: Any, size: int) -> None:
        if message.type is WSMsgType.TEXT:
            self._sink.texts(time.time_ns(), [message.data])
        elif message.type is WSMsgType.BINARY:
            self._sink.binary(time.time_ns(), message.data)
        else:
            self._control.feed_data(message, size)

    def set_exception(self, exc: Any, exc_cause: Any = None) -> None:
        if exc_cause is None:
            self._control.set_exception(exc)
        else:
            self._control.set_exception(exc, exc_cause)

    def feed_eof(self) -> None:
        self._control.feed_eof()


class TappedSocket(ClientWebSocketResponse):
    """aiohttp's socket whose data goes to a sink as it is read; ``receive`` tells of control frames and of the end."""

    def __init__(self, sink: Sink, largest: int, reader: Any, *arguments: Any, **named: Any) -> None:
        super().__init__(reader, *arguments, **named)
        connection = self._response.connection
        assert connection is not None, "aiohttp makes its socket of an open connection"
        self._transport: Any = connection.transport
        queue = DataToSink(sink, reader, connection.protocol, self._loop)
        self._splitter: Any = FrameSplitter(
            sink, WebSocketReader(queue, largest, bool(named.get("compress")), decode_text=False), largest
        )

    @property
    def _parser(self) -> Any:
        """What aiohttp gives the socket's bytes to: it makes a reader of its own, in vain, and asks for it here."""
        return self._splitter

    @_parser.setter
    def _parser(self, parser: Any) -> None:
        if parser is None:
            self._splitter = None

    def hold_back(self) -> None:
        """Read no more from the socket: its sender is slowed down by TCP."""
        self._transport.pause_reading()

    def go_on(self) -> None:
        """Read from the socket again."""
        self._transport.resume_reading()


class Tapped:
    """Stands for ``create_connection`` of ccxt's client: its sockets give their data to ``sink``."""

    def __init__(self, client: Any, sink: Sink) -> None:
        self._create = client.create_connection
        self._sink = sink

    def __call__(self, session: Any) -> Any:
        return self._create(_TappedSession(session, self._sink))


class _TappedSession:
    """aiohttp's session as ccxt uses it."""

    def __init__(self, session: Any, sink: Sink) -> None:
        self._session = session
        self._sink = sink
        self.cookie_jar = session.cookie_jar

    def ws_connect(self, *arguments: Any, **named: Any) -> Any:
        largest = named.get("max_msg_size", _LARGEST)
        # A public argument of a session, but ccxt makes it; each connection of ours has a session of its own.
        self._session._ws_response_class = partial(TappedSocket, self._sink, largest)
        return self._session.ws_connect(*arguments, **named)
