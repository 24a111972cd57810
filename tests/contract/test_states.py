"""The contract: the cases of `tests/api/test_states.py`."""

from __future__ import annotations

from tests.api import test_states
from tests.contract.api_cases import taken

INSIDE = {
    "test_a_purge_frees_the_name": "the purge",
    "test_a_purge_spares_the_living": "the purge",
}
DIFFERENCES = {
    "test_the_first_administrator_stays": "administrator",
}

globals().update(taken(test_states, inside=INSIDE, differences=DIFFERENCES))
