"""Writes the API page from the docstrings: `make docs`, or python docs/api.py FOLDER.

It shows the verbs and what others build on: specs, losses, networks, protocols, recipes, and what
`fissura.testing` holds them to.
"""

import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules

import pdoc

import fissura.api
import fissura.data.datasets
from fissura.data.dataset import Dataset
from fissura.data.labelled import LabelledDataset

SHOWN = (
    "fissura.api",
    "fissura.core.spec",
    "fissura.core.errors",
    "fissura.losses",
    "fissura.models",
    "fissura.metrics",
    "fissura.data.dataset",
    "fissura.data.datasets",
    "fissura.recipes",
    "fissura.segmentation.recipe",
    "fissura.classification.recipe",
    "fissura.deploy.model",
    "fissura.testing.formulas",
    "fissura.testing.losses",
    "fissura.testing.models",
    "fissura.testing.shapes",
)


def main(folder: str) -> None:
    """Writes the pages below `folder`."""
    # the verbs name this type late, as text, so that importing them is quick; pdoc needs the types
    named = str | Path | Dataset | LabelledDataset
    modules = [import_module(f"fissura.api.{found.name}") for found in iter_modules(fissura.api.__path__)]
    for module in (fissura.data.datasets, fissura.api, *modules):
        vars(module).update(Named=named, Sequence=Sequence)
    pdoc.render.configure(docformat="google", footer_text="fissura")
    pdoc.pdoc(*SHOWN, output_directory=Path(folder))


if __name__ == "__main__":
    main(*sys.argv[1:])
