"""Asks /healthz at a port ten times a second, each time over a connection of its own, and prints the status
(0: none) and the seconds of each; ends when its standard input does.

A process of its own, before others where it may be: the seconds are the service's, not those of its attacker.
"""

import os
import select
import sys
import time
from contextlib import suppress

from serving_door import head, sent

EVERY_SECONDS = 0.1


def ask(port: int) -> int:
    try:
        return sent(port, head("GET", "/healthz")).status
    except OSError:
        return 0


if __name__ == "__main__":
    with suppress(PermissionError):
        os.setpriority(os.PRIO_PROCESS, 0, -15)
    while not select.select([sys.stdin], [], [], EVERY_SECONDS)[0]:
        begin = time.monotonic()
        status = ask(int(sys.argv[1]))
        print(status, f"{time.monotonic() - begin:.4f}", flush=True)  # noqa: T201
