"""The contract: the cases of `tests/api/test_public_keys.py`."""

from __future__ import annotations

from tests.api import test_public_keys
from tests.contract.api_cases import taken

INSIDE = {
    "test_an_account_with_a_key_does_not_expire": "the database",
    "test_the_ledger_tells": "the database",
    "test_a_private_member": "the gateway",
}
DIFFERENCES = {
    "test_refused_keys[Ed25519 of zeros]": "weak keys",
}

globals().update(taken(test_public_keys, inside=INSIDE, differences=DIFFERENCES))
