"""A search space full of mistakes, and every line that is said about it."""

from pathlib import Path

import pytest

from fissura.core.errors import SpaceError
from fissura.spaces import load_text

HERE = Path(__file__).parent


def test_every_mistake_is_told_at_once_with_its_line_and_remedy() -> None:
    text = (HERE / "search_space_errors.yaml").read_text()
    with pytest.raises(SpaceError) as caught:
        load_text(text, source="search_spaces/mine.yaml")
    assert str(caught.value) + "\n" == (HERE / "search_space_errors.txt").read_text()
