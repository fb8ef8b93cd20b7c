"""Our samplers and the study's storages keep Optuna's contracts: its own suites of tests, run over ours.

What a suite asks that ours are not made for is left out by name (`= None`), with the reason beside it.
"""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from optuna.samplers import BaseSampler
from optuna.storages import BaseStorage
from optuna.testing.pytest_samplers import (
    BasicSamplerTestCase,
    MultiObjectiveSamplerTestCase,
    RelativeSamplerTestCase,
)
from optuna.testing.pytest_storages import StorageTestCase
from sqlalchemy import event

from fissura.spaces.samplers.adaptive import AdaptiveSampler
from fissura.spaces.samplers.tpe import HISTORY, BoundedTPE
from fissura.studies.database import database_url
from fissura.studies.patient_storage import PatientStorage
from fissura.studies.study_memory import StudyMemory


class TestBoundedTPE(BasicSamplerTestCase, RelativeSamplerTestCase, MultiObjectiveSamplerTestCase):
    @pytest.fixture(params=[HISTORY, 2], ids=["within", "beyond"])
    def sampler(self, request: pytest.FixtureRequest) -> Callable[[], BaseSampler]:
        """TPE below its bound, and with all but the first two trials beyond it."""
        return lambda: BoundedTPE(seed=0, startup=2, history=request.param)

    # they ask for values of all parameters after one trial: ours draws at random before `startup` of them
    test_sample_relative_numerical = None
    test_sample_relative_categorical = None
    test_sample_relative_mixed = None


class TestAdaptive(BasicSamplerTestCase, MultiObjectiveSamplerTestCase):
    # RelativeSamplerTestCase is left out: of its parameters, this one gives C and gamma alone
    @pytest.fixture
    def sampler(self) -> Callable[[], BaseSampler]:
        return lambda: AdaptiveSampler(factor=4, least=1.1, seed=0)


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database of no studies: to make its tables costs many waits for the disk."""
    path = tmp_path_factory.mktemp("empty") / "study.db"
    PatientStorage(database_url(path), on_wait=print).engine.dispose()
    return path


@pytest.fixture
def database(empty: Path, tmp_path: Path) -> Iterator[PatientStorage]:
    path = Path(shutil.copy(empty, tmp_path))
    storage = PatientStorage(database_url(path), on_wait=print, seconds=1)
    # nothing here outlives the process, so nothing waits for the disk
    event.listen(storage.engine, "connect", lambda opened, _: opened.execute("PRAGMA synchronous=OFF"))
    storage.engine.dispose()
    yield storage
    storage.engine.dispose()


class TestPatientStorage(StorageTestCase):
    @pytest.fixture
    def storage(self, database: PatientStorage) -> BaseStorage:
        return database


class TestStudyMemory(StorageTestCase):
    @pytest.fixture
    def storage(self, database: PatientStorage) -> BaseStorage:
        return StudyMemory(database, name="study")
