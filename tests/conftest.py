"""What every test stands on: a quiet environment, fixed seeds, two threads, repeatable property tests."""

import os
import random
import signal
import sys
from collections.abc import Callable
from typing import NamedTuple

# threads that wait by spinning make a shared machine several times slower; read when PyTorch is imported
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"

import numpy as np
import pytest
from hypothesis import HealthCheck, settings

settings.register_profile(
    "fissura",
    derandomize=True,
    deadline=None,
    max_examples=50,
    database=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("fissura")

# A background job starts with Ctrl-C ignored, and would hand that on to the processes that a test interrupts.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def fixed_seeds() -> None:
    """Global generators start alike in every test; torch, where a test imports it, is left to two threads."""
    random.seed(0)
    np.random.seed(0)
    if (torch := sys.modules.get("torch")) is not None:
        torch.manual_seed(0)
        torch.set_num_threads(2)


@pytest.fixture
def rng() -> np.random.Generator:
    """A generator with a fixed seed."""
    return np.random.default_rng(0)


class Outcome(NamedTuple):
    """What a command line came to: its exit code, standard output, and the lines of standard error."""

    code: int
    out: str
    said: list[str]


@pytest.fixture
def fissura(capfd: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    """Runs one command line in this process, a word an argument."""
    from fissura.cli.app import run

    def call(*words: object) -> Outcome:
        capfd.readouterr()
        code = run([str(word) for word in words])
        out, said = capfd.readouterr()
        return Outcome(code, out, said.splitlines())

    return call
