"""Seeds: every random number follows from one of them, and never from the order of processes."""

import hashlib


def derive(seed: int, *parts: int | str) -> int:
    """A 63-bit seed for one place in the work, such as `derive(seed, "augment", epoch, index)`."""
    text = "/".join(str(part) for part in (seed, *parts))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1
