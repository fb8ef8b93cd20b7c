"""Storage that is full or gone: what is written waits for it, and for a bounded time."""

import errno
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import optuna
import pytest
import sqlalchemy.exc

from fissura.core.errors import Interrupted, ResourceError
from fissura.core.retry import must_stand, persist
from fissura.studies.patient_storage import PatientStorage, is_transient


def failing(*numbers: int) -> Callable[[], str]:
    """Fails with these error numbers, one a call, and then no more."""
    left = list(numbers)

    def action() -> str:
        if left:
            raise OSError(left[0], os.strerror(left.pop(0)))
        return "written"

    return action


class TestAWriteThatWaits:
    def test_ends_well_when_the_storage_is_back_and_says_what_it_waits_for(self) -> None:
        said: list[str] = []
        done = persist(failing(errno.ENOSPC, errno.ESTALE), what="here", on_wait=said.append)
        assert done == "written"
        assert len(said) == 3
        assert "here: [Errno 28] No space left on device; tried again for 300 s more" in said[0]
        assert said[2] == "", "the waiting is over"

    def test_gives_up_with_the_reason_when_its_time_is_up(self) -> None:
        begin, said = time.monotonic(), list[str]()
        with pytest.raises(ResourceError, match=r"here: cannot be written .*No space left.*within 1 s; free"):
            persist(failing(*[errno.ENOSPC] * 50), what="here", on_wait=said.append, seconds=0.7)
        assert said[-1] == ""
        assert time.monotonic() - begin < 5

    def test_does_not_wait_for_what_will_not_pass(self) -> None:
        with pytest.raises(ResourceError, match="Permission denied"):
            persist(failing(errno.EACCES), what="here", on_wait=pytest.fail)
        with pytest.raises(ZeroDivisionError):
            persist(lambda: 1 / 0, what="here", on_wait=pytest.fail)

    def test_ends_when_it_is_told_to(self) -> None:
        def stop(_: str) -> None:
            raise Interrupted("stopped")

        with pytest.raises(Interrupted):
            persist(failing(errno.EIO), what="here", on_wait=stop)

    def test_waits_for_a_folder_that_is_gone(self, tmp_path: Path) -> None:
        (tmp_path / "there").mkdir()
        (tmp_path / "there").rename(tmp_path / "away")
        timer = threading.Timer(0.3, lambda: (tmp_path / "away").rename(tmp_path / "there"))
        timer.start()
        persist(lambda: must_stand(tmp_path / "there"), what="here", on_wait=lambda _: None)
        timer.join()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "study").mkdir()
    return tmp_path / "study"


def opened(folder: Path, said: list[str], *, seconds: float = 60) -> optuna.Study:
    storage = PatientStorage(f"sqlite:///{folder / 'study.db'}", on_wait=said.append, seconds=seconds)
    return optuna.create_study(storage=storage, study_name="study", load_if_exists=True)


@pytest.fixture
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waits take a twentieth of their time, Optuna's own between its attempts too."""
    sleep = time.sleep
    monkeypatch.setattr(time, "sleep", lambda seconds: sleep(seconds / 20))


@pytest.mark.usefixtures("short_waits")
class TestAStudysDatabase:
    def test_whose_folder_is_gone_is_waited_for_and_loses_nothing(self, folder: Path) -> None:
        said: list[str] = []
        away = folder.with_name("away")

        def told(reason: str) -> None:
            said.append(reason)
            if len(said) == 2:
                away.rename(folder)

        storage = PatientStorage(f"sqlite:///{folder / 'study.db'}", on_wait=told, seconds=60)
        study = optuna.create_study(storage=storage, study_name="study")
        study.tell(study.ask(), 1.0)
        folder.rename(away)
        study.tell(study.ask(), 2.0)
        assert [bool(reason) for reason in said] == [True, True, False]
        assert said[0].startswith("the study's database: ")
        assert [trial.value for trial in opened(folder, said).trials] == [1.0, 2.0]

    def test_that_stays_away_is_named(self, folder: Path) -> None:
        study = opened(folder, [], seconds=0.5)
        study.ask()
        folder.rename(folder.with_name("away"))
        with pytest.raises(ResourceError, match="the study's database: cannot be written"):
            study.ask()

    def test_that_another_process_locks_is_waited_for(self, folder: Path) -> None:
        said: list[str] = []
        study = opened(folder, said)
        # SQLite's own patience is a minute: what comes after it is asked of the error alone
        cause = sqlalchemy.exc.OperationalError("insert", {}, Exception("database is locked"))
        error = optuna.exceptions.StorageInternalError("commit")
        error.__cause__ = cause
        assert is_transient(error)
        assert is_transient(cause)
        assert not is_transient(
            sqlalchemy.exc.OperationalError("insert", {}, Exception("no such table: trials"))
        )
        assert not is_transient(optuna.exceptions.StorageInternalError("commit"))
        study.tell(study.ask(), 1.0)
        assert said == []
