"""What is looked at again and again while a block of work lasts."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Event, Thread


@contextmanager
def every(seconds: float, look: Callable[[], None]) -> Iterator[None]:
    """Inside the block, a thread calls `look` at this interval; none of its calls outlasts the block."""
    ended = Event()

    def watch() -> None:
        while not ended.wait(seconds):
            look()

    thread = Thread(target=watch, name=look.__qualname__, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
