"""Imports the modules that a file names, each on a line: what a process imports before it is forked."""

import os
from contextlib import suppress
from importlib import import_module
from pathlib import Path

VARIABLE = "WRITE_IMPORTS"

if VARIABLE in os.environ:
    for name in Path(os.environ[VARIABLE]).read_text(encoding="utf-8").split():
        # some modules are there only once another has asked for them
        with suppress(Exception):
            import_module(name)
