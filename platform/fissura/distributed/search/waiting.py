"""The trials that wait for their storage, noted in Ray's head: the storage itself is unavailable."""

from pathlib import Path

from ray.experimental.internal_kv import (
    _internal_kv_del,
    _internal_kv_get,
    _internal_kv_list,
    _internal_kv_put,
)

SPACE = b"fissura-waiting"


class WaitingTrials:
    """The reasons why trials of one study wait, by trial number."""

    def __init__(self, study: Path) -> None:
        self._prefix = f"{study}|"

    def tell(self, number: int, reason: str) -> None:
        """Notes that a trial waits, and why; "": no longer."""
        key = f"{self._prefix}{number}".encode()
        if reason:
            _internal_kv_put(key, reason.encode(), overwrite=True, namespace=SPACE)
        else:
            _internal_kv_del(key, namespace=SPACE)

    def reasons(self) -> dict[int, str]:
        """The current notes."""
        reasons = {}
        for key in _internal_kv_list(self._prefix.encode(), namespace=SPACE):
            reason = _internal_kv_get(key, namespace=SPACE)
            if reason is not None:
                reasons[int(key.decode().removeprefix(self._prefix))] = reason.decode()
        return reasons
