"""The bearer token of a service that other machines can reach."""

import hashlib
import hmac
import ipaddress
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from fissura.core.errors import SpecError
from fissura.serving.problems import Problem, Refused

VARIABLE = "FISSURA_TOKEN"
LEAST_LENGTH = 16
MOST_BYTES = 4096


def read_token(path: Path | None, environment: Mapping[str, str] = os.environ) -> str | None:
    """The token in the file at `path`, or else in the variable FISSURA_TOKEN; None if there is neither.

    Raises:
        SpecError: the file cannot be read, or the token is invalid; no error shows its text.
    """
    if path is not None:
        try:
            with path.open("rb") as file:
                token = file.read(MOST_BYTES).decode().strip()
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "it is no text"
            raise SpecError(
                f"--token-file {path}: cannot be read ({reason}); name a file that holds the token"
            ) from None
        source = f"--token-file {path}"
    elif VARIABLE in environment:
        token, source = environment[VARIABLE].strip(), VARIABLE
    else:
        return None
    if len(token) < LEAST_LENGTH or not token.isascii() or not token.isprintable() or " " in token:
        raise SpecError(
            f"{source}: a token has {LEAST_LENGTH} printable characters or more and no spaces: this one has"
            f" {len(token)}; make one with `openssl rand -hex 32`"
        )
    return token


@contextmanager
def without_token_variable() -> Iterator[None]:
    """Removes the variable FISSURA_TOKEN for the block, so that child processes do not inherit it."""
    token = os.environ.pop(VARIABLE, None)
    try:
        yield
    finally:
        if token is not None:
            os.environ[VARIABLE] = token


def check_exposure(host: str, token: str | None) -> None:
    """Checks that a service that other machines reach has a token.

    Raises:
        SpecError: it has none.
    """
    if token is None and not is_loopback(host):
        raise SpecError(
            f"--host {host}: a service that other machines can reach needs a token: none was given; set"
            f" {VARIABLE} or --token-file, or leave --host out"
        )


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches `host`."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def token_digest(token: str) -> str:
    """The SHA-256 of a token, which the configuration holds instead of the token."""
    return hashlib.sha256(token.encode()).hexdigest()


def check_token(digest: str | None, authorization: str | None) -> None:
    """Checks that a request carries the token of this digest; without a digest, any request passes.

    Takes the same time for any wrong token.

    Raises:
        Refused: the header is missing or wrong.
    """
    if digest is None:
        return
    scheme, _, token = (authorization or "").partition(" ")
    valid = hmac.compare_digest(token_digest(token.strip()), digest)
    if not valid or scheme.lower() != "bearer":
        detail = "none was sent" if authorization is None else "another one was sent"
        raise Refused(
            Problem(
                "no-token",
                "a request carries the service's token",
                detail,
                "send `Authorization: Bearer TOKEN`",
            )
        )
