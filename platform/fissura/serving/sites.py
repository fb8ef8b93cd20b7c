"""Only the service's own page may send requests from a browser. A page of another site would act with this
machine's rights, and by DNS rebinding could read the response."""

import re

from starlette.datastructures import Headers

from fissura.serving.problems import Problem, Refused

READ_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
OWN_SITES = frozenset({"same-origin", "none"})
"""Values of Sec-Fetch-Site: the service's own page, or the user's own navigation."""
_LOOPBACK = re.compile(
    r"(([\w-]+\.)*localhost\.?|127(\.\d{1,3}){3}|\[::1\])(:\d*)?", re.ASCII | re.IGNORECASE
)
_HOST = re.compile(r"(?P<name>\[[0-9a-f:.]+\]|[^\s:@/\[\]]+)(:(?P<port>\d*))?", re.ASCII)


def check_host(headers: Headers) -> None:
    """Checks that `Host` is a name of the local machine.

    Raises:
        Refused: `Host` is another name, whose owner could point it at this machine (DNS rebinding).
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
    """Checks that a request only reads, or does not come from a page of another site.

    Trusts the browser's Sec-Fetch-Site; without it, Origin must be the service's address.

    Raises:
        Refused: it comes from a page of another site.
    """
    if method in READ_METHODS:
        return
    sites, origins = headers.getlist("sec-fetch-site"), headers.getlist("origin")
    host = headers.get("host", "")
    if sites:
        foreign = [f"Sec-Fetch-Site is {site[:100]!r}" for site in sites if site not in OWN_SITES]
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
    scheme, _, authority = origin.lower().partition("://")
    default = {"http": "80", "https": "443"}.get(scheme)
    parts = [_HOST.fullmatch(text) for text in (authority, host.lower())]
    pairs = {(part["name"], part["port"] or default) for part in parts if part}
    return default is not None and None not in parts and len(pairs) == 1
