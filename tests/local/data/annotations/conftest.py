"""Real annotations, where they are at hand."""

from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[4]


@pytest.fixture
def real():
    """Folder of real annotations; the test is skipped where it is not beside the project."""
    folder = ROOT.parent / "shared" / "data" / "annotations"
    if not folder.is_dir():
        pytest.skip("no real annotations in ../shared/data/annotations")
    return folder
