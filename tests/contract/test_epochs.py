"""The contract: the cases of `tests/api/test_epochs.py`."""

from __future__ import annotations

from tests.api import test_epochs
from tests.contract.api_cases import taken

INSIDE = {
    "test_a_retry_raises_it_once": "the database",
    "test_the_10001st_revocation": "the database",
    "test_a_void_token_makes_no_row": "the database",
    "test_raced_past_the_bound": "the database",
}

globals().update(taken(test_epochs, inside=INSIDE))
