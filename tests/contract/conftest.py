"""The shapes in the signatures of networks and losses are checked at run time, here only."""

import pytest

pytest.register_assert_rewrite("fissura.testing.losses", "fissura.testing.models")

from fissura.testing.shapes import check_shapes  # noqa: E402  what it imports is rewritten

check_shapes()
