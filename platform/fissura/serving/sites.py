"""Which pages of a browser may ask: the service's own. A page of another site would act with what this
machine may do, and read the answer where it makes its own name mean this machine."""

import re

from starlette.datastructures import Headers

from fissura.serving.problems import Problem, Refused

READING = frozenset({"GET", "HEAD", "OPTIONS"})
OWN = frozenset({"same-origin", "none"})
"""Of Sec-Fetch-Site: the service's own page, or the user's own doing."""
_LOOPBACK = re.compile(
    r"(([\w-]+\.)*localhost\.?|127(\.\d{1,3}){3}|\[::1\])(:\d*)?", re.ASCII | re.IGNORECASE
)
_HOST = re.compile(r"(?P<name>\[[0-9a-f:.]+\]|[^\s:@/\[\]]+)(:(?P<port>\d*))?", re.ASCII)


def check_host(headers: Headers) -> None:
    """Lets a request pass that asks for this machine by a name that is this machine's everywhere.

    Raises:
        Refused: another name stands in `Host`, which its owner may let mean this machine (DNS rebinding).
    """
    for host in headers.getlist("host"):
        if not _LOOPBACK.fullmatch(host):
            raise Refused(
                Problem(
                    "cross-site",
                    "a service without a token is asked as localhost, 127.0.0.1 or [::1]",
                    f"Host is {host[:100]!r}",
                    "ask it by such a name, or start it with --token-file",
                )
            )


def check_site(method: str, headers: Headers) -> None:
    """Lets a request pass that only reads, or that no page of another site has sent.

    What browsers say in Sec-Fetch-Site is believed; where they do not say, Origin is the service's address.

    Raises:
        Refused: a page of another site sent it.
    """
    if method in READING:
        return
    sites, origins = headers.getlist("sec-fetch-site"), headers.getlist("origin")
    host = headers.get("host", "")
    if sites:
        foreign = [f"Sec-Fetch-Site is {site[:100]!r}" for site in sites if site not in OWN]
    else:
        foreign = [f"Origin is {origin[:100]!r}" for origin in origins if not _same(origin, host)]
    if foreign:
        raise Refused(
            Problem(
                "cross-site",
                "a page in a browser asks the service that it came from",
                "; ".join(foreign[:2]),
                "use the service's own page, or a program that is no browser",
            )
        )


def _same(origin: str, host: str) -> bool:
    scheme, _, place = origin.lower().partition("://")
    default = {"http": "80", "https": "443"}.get(scheme)
    parts = [_HOST.fullmatch(text) for text in (place, host.lower())]
    pairs = {(part["name"], part["port"] or default) for part in parts if part}
    return default is not None and None not in parts and len(pairs) == 1
