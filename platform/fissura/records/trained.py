"""The result of a training: the run's folder and its manifest."""

from pathlib import Path
from typing import Any, NamedTuple

from fissura.core.brief import Brief
from fissura.core.text import count, duration
from fissura.records.manifest import Manifest


class _Trained(NamedTuple):
    run: Path
    manifest: Manifest


class Trained(Brief, _Trained):
    """A finished run: its folder, and the manifest of what produced it; both in this order as a tuple too."""

    __slots__ = ()

    def lines(self) -> list[str]:
        """The recipe, what its training took, and the run's folder."""
        manifest = self.manifest
        epochs = (
            f", {count(manifest.epochs, 'epoch')}, the best {manifest.best_epoch}" if manifest.epochs else ""
        )
        return [
            f"{manifest.recipe['name']}, seed {manifest.seed}{epochs}",
            f"  {count(manifest.parameters, 'parameter')}, {duration(manifest.seconds)} on {manifest.device}",
            f"run: {self.run}",
        ]

    def rows(self) -> list[dict[str, Any]]:
        """One row, of what the manifest says in numbers."""
        plain = self.manifest.plain()
        names = ("seed", "epochs", "best_epoch", "parameters", "seconds", "energy_joules", "device", "cpus")
        return [
            {"run": str(self.run), "recipe": plain["recipe"]["name"], **{name: plain[name] for name in names}}
        ]
