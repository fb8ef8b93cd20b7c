"""Checks that a cluster's address accepts connections: Ray itself would retry for minutes."""

import socket

TIMEOUT_SECONDS = 5


def unreachable(address: str) -> str:
    """Why `HOST:PORT` cannot be reached; empty if it can. Ray itself checks words such as `auto`."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if not colon or not port.isdigit():
        return ""
    try:
        socket.create_connection((host.strip("[]"), int(port)), TIMEOUT_SECONDS).close()
    except (OSError, OverflowError) as error:
        return str(getattr(error, "strerror", None) or error)
    return ""
