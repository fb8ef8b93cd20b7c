"""Checks that a mirror of a data set has a permitted address and can be reached."""

import socket
import threading
from ipaddress import ip_address
from typing import TYPE_CHECKING
from urllib.parse import urljoin, urlsplit
from urllib.request import getproxies, proxy_bypass

from fissura.core.errors import DataError

if TYPE_CHECKING:
    from requests import Response

CFD_MIRROR = "https://raw.githubusercontent.com/cuilimeng/CrackForest-dataset/master"
PATIENCE = 3.0  # seconds in which the mirror must accept a connection


def check_redirect(response: "Response", **_: object) -> None:
    """Refuses a redirect to an address that a mirror may not have."""
    from requests.exceptions import InvalidURL

    target = urljoin(response.url, response.headers.get("Location", ""))
    if response.is_redirect and not _permitted(target):
        raise InvalidURL(
            f"the mirror answers {response.status_code} with a redirect to {target:.200}, which is not https"
        )


def is_loopback(address: str) -> bool:
    """Whether the address is this machine's own."""
    host = urlsplit(address).hostname or ""
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def _permitted(address: str) -> bool:
    parts = urlsplit(address)
    return bool(parts.hostname) and (
        parts.scheme == "https" or (parts.scheme == "http" and is_loopback(address))
    )


def check_address(mirror: str) -> None:
    """Checks that a mirror may have this address.

    Raises:
        DataError: it may not.
    """
    try:
        permitted = _permitted(mirror)
        _ = urlsplit(mirror).port
    except ValueError:
        permitted = False
    if not permitted:
        raise DataError(
            f"`{mirror}`: a mirror is an https address (http on the loopback alone), as {CFD_MIRROR}"
        )


def check_network(mirror: str) -> None:
    """Connects once, to the mirror or its proxy, so that a machine without a network fails soon.

    Raises:
        DataError: it cannot be reached.
    """
    parts = urlsplit(mirror)
    host, port = parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
    proxy = getproxies().get(parts.scheme)
    if proxy and not is_loopback(mirror) and not proxy_bypass(host):
        via = urlsplit(proxy if "://" in proxy else f"//{proxy}")
        host, port = via.hostname or host, via.port or 80
    results: list[str] = []

    def connect() -> None:
        try:
            socket.create_connection((host, port), timeout=PATIENCE).close()
            results.append("")
        except OSError as error:
            results.append(str(error) or type(error).__name__)

    # in a thread: a name look-up has no timeout
    attempt = threading.Thread(target=connect, daemon=True)
    attempt.start()
    attempt.join(PATIENCE + 0.5)
    reason = results[0] if results else f"no answer within {PATIENCE:g} s"
    if reason:
        raise DataError(
            f"{host}:{port} cannot be reached ({reason}): fetching from {mirror} needs a network; "
            "connect this machine, name another mirror, or copy the data set here from a machine that has one"
        )
