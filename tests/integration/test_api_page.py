"""The API page is built from the docstrings, without a warning."""

import subprocess
import sys
from pathlib import Path

import pytest

import fissura

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_the_api_page_names_every_verb_and_warns_of_nothing(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "docs" / "api.py", tmp_path], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "index.html").is_file()
    page = (tmp_path / "fissura" / "api.html").read_text()
    assert [verb for verb in fissura.__all__ if f'id="{verb}"' not in page] == []
    assert 'id="check_loss"' in (tmp_path / "fissura" / "testing" / "losses.html").read_text()
