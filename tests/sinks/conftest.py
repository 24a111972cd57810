"""Fixtures of the tests of the sinks."""

from __future__ import annotations

from pathlib import Path

import pytest
import trustme

from tests.https import ca_file


@pytest.fixture(scope="session")
def ca() -> trustme.CA:
    """Who signs the certificates of the tests' servers."""
    return trustme.CA()


@pytest.fixture
def trusted(ca: trustme.CA, tmp_path: Path) -> Path:
    """The file of that CA's certificate."""
    return ca_file(ca, tmp_path)
