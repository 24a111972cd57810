"""The contract: the cases of `tests/api/test_assertions.py`."""

from __future__ import annotations

from tests.api import test_assertions
from tests.contract.api_cases import taken

INSIDE = {
    "test_the_legacy_route": "the gateway",
    "test_a_denial_says_why": "the log",
}
DIFFERENCES = {
    "test_failures_are_limited": "failures",
}

globals().update(taken(test_assertions, inside=INSIDE, differences=DIFFERENCES))
