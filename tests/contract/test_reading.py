"""The contract: the cases of `tests/api/test_reading.py`."""

from __future__ import annotations

from tests.api import test_reading
from tests.contract.api_cases import taken

globals().update(taken(test_reading))
