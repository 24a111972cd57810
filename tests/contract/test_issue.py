"""The contract: the cases of `tests/api/test_issue.py`."""

from __future__ import annotations

from tests.api import test_issue
from tests.contract.api_cases import taken

INSIDE = {
    "test_the_lifetime_is_a_setting": "the settings",
}

globals().update(taken(test_issue, inside=INSIDE))
