"""The study's database with retries: its storage may be full, locked or unavailable for a while."""

import functools
from collections.abc import Callable
from typing import Any

import optuna
from optuna.storages import RDBStorage
from sqlalchemy.exc import OperationalError

from fissura.core.retry import STORAGE_SECONDS, OnWait, persist

# SQLite's own words; "readonly" is what it says of a file that was moved away under it
TRANSIENT = (
    "disk I/O error", "database is locked", "database or disk is full", "unable to open database file",
    "attempt to write a readonly database",
)  # fmt: skip


class PatientStorage(RDBStorage):
    """Optuna's SQL storage, each of whose transactions is tried again while the database cannot be used.

    A transaction that failed has changed nothing, so it can be repeated.
    """

    def __init__(self, url: str, *, on_wait: OnWait, seconds: float = STORAGE_SECONDS) -> None:
        self._on_wait, self._seconds = on_wait, seconds
        persist(
            # another process's write lock is waited for by SQLite itself first
            lambda: RDBStorage.__init__(self, url, engine_kwargs={"connect_args": {"timeout": 60}}),
            what="the study's database",
            passing=is_transient,
            on_wait=on_wait,
            seconds=seconds,
        )

    def with_retry(self, call: Callable[[], Any]) -> Any:
        """The result of a call, tried again while the database cannot be used."""

        def attempt() -> Any:
            try:
                return call()
            except Exception as error:
                if is_transient(error):
                    # a connection may hold a file that is no longer the one at its path
                    self.engine.dispose()
                raise

        return persist(
            attempt,
            what="the study's database",
            passing=is_transient,
            on_wait=self._on_wait,
            seconds=self._seconds,
        )


def is_transient(error: BaseException) -> bool:
    """Whether an error of the database is transient."""
    cause = error.__cause__ if isinstance(error, optuna.exceptions.StorageInternalError) else error
    return isinstance(cause, OperationalError) and any(words in str(cause) for words in TRANSIENT)


def _retried(method: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(method)
    def call(self: PatientStorage, *arguments: Any, **named: Any) -> Any:
        return self.with_retry(lambda: method(self, *arguments, **named))

    return call


# beside the public calls, those that Optuna's cache makes of the storage below it
for _name in (
    *optuna.storages.BaseStorage.__abstractmethods__,
    "_create_new_trial",
    "_set_trial_param",
    "_get_trials",
    "_get_best_trial_id",
):
    setattr(PatientStorage, _name, _retried(getattr(RDBStorage, _name)))
