"""The contract: the cases of `tests/api/test_forgery.py`."""

from __future__ import annotations

import pytest
from joserfc.jwk import RSAKey

from tests.api import test_forgery
from tests.contract.api_cases import taken
from tests.contract.stands import Stand

globals().update(taken(test_forgery))
stored_key = test_forgery.real_key


@pytest.fixture(scope="module")
def real_key(request: pytest.FixtureRequest, service: Stand) -> RSAKey:
    """The authority's own signing key: what it signs fails for its contents alone."""
    key = request.getfixturevalue("stored_key") if service.kind == "real" else service.signing_key()
    assert isinstance(key, RSAKey)
    return key
