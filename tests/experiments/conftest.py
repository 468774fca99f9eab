"""Studies at a small scale: that they run, write what they say, and measure real things."""

from pathlib import Path

import pytest

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items):
    """Each takes half a minute, and is in the slow tier."""
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.slow)
