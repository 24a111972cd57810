"""Fixtures of the tests of the key service."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.kms.running import KmsPlugin


@pytest.fixture
def plugin() -> Iterator[KmsPlugin]:
    """A KMS v2 plugin of the test's own."""
    with KmsPlugin() as running:
        yield running
