"""Whether somebody listens at a cluster's address: Ray would try for minutes where nobody does."""

import socket

PATIENCE_SECONDS = 5


def unreachable(address: str) -> str:
    """Why nobody can be reached at `HOST:PORT`, or nothing; words such as `auto` are left to Ray."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if not colon or not port.isdigit():
        return ""
    try:
        socket.create_connection((host.strip("[]"), int(port)), PATIENCE_SECONDS).close()
    except (OSError, OverflowError) as error:
        return str(getattr(error, "strerror", None) or error)
    return ""
