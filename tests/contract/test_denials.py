"""The contract: the cases of `tests/api/test_denials.py`."""

from __future__ import annotations

from tests.api import test_denials
from tests.contract.api_cases import taken

DIFFERENCES = {
    "test_failures_slow_down": "failures",
    "test_a_secret_that_is_known_is_never_slowed": "failures",
}

globals().update(taken(test_denials, differences=DIFFERENCES))
