"""Our decoders on the frames that bench.decode wrote: ``python -m bench.decode_ours FRAMES SECONDS``; prints JSON."""

from __future__ import annotations

import importlib
import json
import sys
import time
from base64 import b64decode
from pathlib import Path

from collectors.decode import DecodeError, decoder

BATCH = 200


def rate(exchange: str, payload: bytes, seconds: float) -> float:
    """Frames per CPU-second; every one must yield as much as the first."""
    one = decoder(exchange)
    # Some frames mean something only behind the acknowledgement of their subscription.
    for message in importlib.import_module(f"tests.unit.decode.test_{exchange}").FRAMES.values():
        try:
            one.decode(message)
        except DecodeError:
            continue
    decode = one.decode
    events, count, begun = len(decode(payload)), 0, time.process_time()
    seen = 0
    while (spent := time.process_time() - begun) < seconds:
        for _ in range(BATCH):
            seen += len(decode(payload))
        count += BATCH
    assert events > 0
    assert seen == events * count, f"{exchange}: {seen} events of {count} frames of {events}"
    return count / spent


def main(path: str, seconds: str) -> None:
    asked = json.loads(Path(path).read_text())
    found = {one["name"]: rate(one["exchange"], b64decode(one["payload"]), float(seconds)) for one in asked}
    print(json.dumps({"rates": found}))


if __name__ == "__main__":
    main(*sys.argv[1:])
