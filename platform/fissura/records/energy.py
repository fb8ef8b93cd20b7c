"""Energy in joules from the machine's counters of processors (RAPL) and graphics cards (NVML).

The counters count the whole machine: the number is a run's own only where the run is alone.
"""

from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path

POWERCAP = Path("/sys/class/powercap")


class Counter:
    """One counter: `read` gives it in units of `joule` joules; above `limit` it starts again from 0."""

    def __init__(self, read: Callable[[], int], *, joule: float, limit: int | None) -> None:
        self._read, self._joule, self._limit = read, joule, limit
        self._last = read()
        self._total = 0

    def joules(self) -> float:
        """The energy since the counter was made. One wrap between two calls is mended, two are not seen.

        Raises:
            OSError: if the counter can no longer be read.
        """
        now = self._read()
        self._total += now - self._last
        if now < self._last and self._limit is not None:
            self._total += self._limit + 1
        self._last = now
        return self._total * self._joule


class Meter:
    """Joules since it was made. RAPL's counters wrap after an hour of load: call `joules()` each epoch."""

    def __init__(self, counters: Sequence[Counter]) -> None:
        self._counters = counters

    def joules(self) -> float | None:
        """The energy since the meter was made; None from when a counter could not be read."""
        try:
            return sum(counter.joules() for counter in self._counters) if self._counters else None
        except OSError:
            self._counters = ()
            return None


def energy_meter(powercap: Path = POWERCAP) -> Meter | None:
    """A meter over every counter that this process may read; None where there is none."""
    counters = _rapl(powercap) + _nvml()
    return Meter(counters) if counters else None


def _rapl(powercap: Path) -> list[Counter]:
    counters = []
    for package in sorted(powercap.glob("intel-rapl:*")):
        # "intel-rapl:0" is a package; "intel-rapl:0:1" is a part of it, counted already.
        if package.name.count(":") == 1:
            try:
                limit = int((package / "max_energy_range_uj").read_text())
                counters.append(Counter(_reader(package / "energy_uj"), joule=1e-6, limit=limit))
            except (OSError, ValueError):
                continue
    return counters


def _reader(file: Path) -> Callable[[], int]:
    return lambda: int(file.read_text())


def _nvml() -> list[Counter]:
    try:
        pynvml = import_module("pynvml")
    except ImportError:
        return []

    def reader(index: int) -> Callable[[], int]:
        handle = pynvml.nvmlDeviceGetHandleByIndex(index)

        def read() -> int:
            try:
                return int(pynvml.nvmlDeviceGetTotalEnergyConsumption(handle))
            except pynvml.NVMLError as error:
                raise OSError(str(error)) from error

        return read

    try:
        pynvml.nvmlInit()
        return [Counter(reader(i), joule=1e-3, limit=None) for i in range(pynvml.nvmlDeviceGetCount())]
    except (pynvml.NVMLError, OSError):
        return []
