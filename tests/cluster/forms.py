"""cluster.yaml, and its form for one's own machines, read from the guide itself."""

import re
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "cluster.yaml").read_text()
GUIDE = (ROOT / "docs" / "cluster.md").read_text()


def on_aws() -> dict[str, Any]:
    """cluster.yaml as it is."""
    plain: dict[str, Any] = yaml.safe_load(TEXT)
    return plain


def on_premises() -> dict[str, Any]:
    """cluster.yaml after the edits that the guide describes."""
    plain = on_aws()
    [sentence] = re.findall(r"Take out (.*?) and the first lines", GUIDE, flags=re.DOTALL)
    storage = plain["metadata"]["storage"]
    for key in re.findall(r"`(\w+)`", sentence):
        del plain[key]
    packages = next(command for command in plain["setup_commands"] if "apt-get" in command)
    for command in (packages, storage):
        plain["setup_commands"].remove(command)
    block = re.findall(r"```yaml\n(.*?)```", GUIDE, flags=re.DOTALL)[0]
    return {**plain, **yaml.safe_load(block)}
