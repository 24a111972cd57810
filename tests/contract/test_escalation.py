"""The contract: the cases of `tests/api/test_escalation.py`."""

from __future__ import annotations

from tests.api import test_escalation
from tests.contract.api_cases import taken

globals().update(taken(test_escalation))
