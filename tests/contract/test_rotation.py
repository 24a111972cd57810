"""The contract: the cases of `tests/api/test_rotation.py`."""

from __future__ import annotations

from tests.api import test_rotation
from tests.contract.api_cases import taken

INSIDE = {
    "test_a_key_that_was_taken_away_meanwhile_makes_no_secret": "the hasher",
}

globals().update(taken(test_rotation, inside=INSIDE))
