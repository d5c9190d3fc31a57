"""A small published model and sounds for it."""

from types import SimpleNamespace

import pytest

from tests.toy_detector import LABELS, RATE, make_published, sound


@pytest.fixture(scope="session")
def published(tmp_path_factory):
    """Folder of a published model of two networks."""
    return make_published(tmp_path_factory.mktemp("model") / "toy")


@pytest.fixture
def toy_sound():
    """Function: seconds, seed, rate -> samples; and the toy's rate."""
    return SimpleNamespace(make=sound, rate=RATE, labels=LABELS)


@pytest.fixture(scope="session")
def publish_toy():
    """Function: folder, number of networks, ... -> a published toy model."""
    return make_published
