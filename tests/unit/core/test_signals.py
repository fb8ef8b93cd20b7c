"""Being asked to end: what was started is ended too."""

import contextlib
import os
import signal
import time
from types import SimpleNamespace

import pytest

from fissura.core.signals import interrupted, terminable


def test_sigterm_ends_a_block_as_ctrl_c_does_and_is_put_back() -> None:
    before, ended = signal.getsignal(signal.SIGTERM), []

    def work() -> None:
        with terminable(), contextlib.closing(SimpleNamespace(close=lambda: ended.append("what it started"))):
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(30)

    with pytest.raises(KeyboardInterrupt):
        work()
    assert ended
    assert signal.getsignal(signal.SIGTERM) == before


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_wait_inside_it_ends_without_an_error(number: signal.Signals) -> None:
    with terminable(), interrupted() as event:
        os.kill(os.getpid(), number)
        assert event.wait(30)
