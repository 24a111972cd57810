"""The contract: the cases of `tests/api/test_denials.py`."""

from __future__ import annotations

from tests.api import test_denials
from tests.contract.api_cases import taken

DIFFERENCES = {
    "test_failures_slow_down": "failures",
    "test_a_secret_that_is_known_is_never_slowed": "failures",
}

INSIDE = {
    "test_a_denial_is_in_the_ledger": "the ledger, and the log",
    "test_a_stop_writes_what_was_denied": "the database",
}

globals().update(taken(test_denials, inside=INSIDE, differences=DIFFERENCES))
