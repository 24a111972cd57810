"""The contract: the cases of `tests/api/test_update.py`."""

from __future__ import annotations

from tests.api import test_update
from tests.contract.api_cases import taken

globals().update(taken(test_update))
