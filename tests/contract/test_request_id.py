"""The contract: the cases of `tests/api/test_request_id.py`."""

from __future__ import annotations

from tests.api import test_request_id
from tests.contract.api_cases import taken

INSIDE = {
    "test_answers_are_kept_ten_minutes": "the purge",
    "test_ids_are_forgotten_after_a_day": "the purge",
    "test_ids_and_secrets_are_never_logged": "the log",
}

globals().update(taken(test_request_id, inside=INSIDE))
