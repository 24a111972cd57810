"""The contract: the cases of `tests/api/test_introspection.py`."""

from __future__ import annotations

from tests.api import test_introspection
from tests.contract.api_cases import taken

INSIDE = {
    "test_inactive_over_http_is_nothing_else": "the gateway",
    "test_a_revocation_survives_a_restart": "the database",
}

globals().update(taken(test_introspection, inside=INSIDE))
