"""Ask a running emulator over its QMP socket: ``qmp.py SOCKET COMMAND [JSON] [--until EVENT]``.

Prints nothing; exit code 1 and the emulator's own words where it refuses, or where the event does not come in 60 s.
"""

from __future__ import annotations

import argparse
import json
import socket
import sys
from typing import IO, Any

EVENT_TIMEOUT_S = 60


def answers(stream: IO[str]) -> Any:
    """The emulator's next answer to a command; events in between are kept to themselves."""
    for line in stream:
        message = json.loads(line)
        if "return" in message or "error" in message:
            return message
    return {"error": {"desc": "the emulator closed its socket"}}


def main() -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("socket")
    parser.add_argument("command")
    parser.add_argument("arguments", nargs="?", default="{}", type=json.loads)
    parser.add_argument("--until", metavar="EVENT", help="wait for this event of the device that the command names")
    options = parser.parse_args()
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(EVENT_TIMEOUT_S)
        connection.connect(options.socket)
        stream = connection.makefile("rw")
        stream.readline()  # the greeting
        for command, arguments in (("qmp_capabilities", {}), (options.command, options.arguments)):
            stream.write(json.dumps({"execute": command, "arguments": arguments}) + "\n")
            stream.flush()
            if "error" in (answer := answers(stream)):
                sys.stderr.write(f"{command}: {answer['error']['desc']}\n")
                return 1
        try:
            while options.until:
                message = json.loads(stream.readline())
                if message.get("event") == options.until and message["data"].get("device") == options.arguments["id"]:
                    break
        except TimeoutError:
            sys.stderr.write(f"{options.command}: waited {EVENT_TIMEOUT_S} s for {options.until}\n")
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
