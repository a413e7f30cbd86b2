"""The floor: orjson reads a frame and forgets it: ``python peer_orjson.py FRAMES SECONDS``, in ccxt's venv.

FRAMES is what bench.decode wrote. Prints JSON: frames per CPU-second by venue and channel, None where it is no JSON.
"""

from __future__ import annotations

import json
import sys
import time
import zlib
from base64 import b64decode
from pathlib import Path

import orjson


def rate(payload: bytes, seconds: float) -> float | None:
    is_packed = payload[:2] == b"\x1f\x8b"
    try:
        orjson.loads(zlib.decompress(payload, 47) if is_packed else payload)
    except ValueError:
        return None
    count, begun = 0, time.process_time()
    while (spent := time.process_time() - begun) < seconds:
        for _ in range(500):
            orjson.loads(zlib.decompress(payload, 47) if is_packed else payload)
        count += 500
    return count / spent


def main(path: str, seconds: str) -> None:
    asked = json.loads(Path(path).read_text())
    found = {one["name"]: rate(b64decode(one["payload"]), float(seconds)) for one in asked}
    print(json.dumps({"rates": found, "version": orjson.__version__}))


main(*sys.argv[1:])
