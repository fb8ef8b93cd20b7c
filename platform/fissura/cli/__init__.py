"""The command line: one thin function for each command, over the verbs of the Python API.

Exit codes: 0 done, 1 a failure (also a search that was stopped before its end), 2 the user's mistake.
"""

from fissura.cli.app import main

__all__ = ["main"]
