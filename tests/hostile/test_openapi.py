"""The gateway against its own description: what `/openapi.json` says may come is answered as it says, by schemathesis.

Requests are made from the description, valid ones and wrong ones, with an administrator's token and without. An answer
must be one that is described: its status, media type, headers and body; and never a failure of the service's own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from artstore_grpc.gateway.openapi import document
from tests.hostile.victim import SECONDS, Victim

SHORT, AT_LENGTH = 15, 1500
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]

A_JWT = "GET /.well-known/revocations"
"""Its body is text, which the library would read as JSON."""
SCHEMA = schemathesis.openapi.from_dict(document())
OPERATIONS = [f"{each.ok().method.upper()} {each.ok().path}" for each in SCHEMA.get_all_operations()]


def attacked(victim: Victim, name: str, most: int, record: Callable[[str, object], None]) -> None:
    """Sends an operation so many requests."""
    method, path = name.split(" ")
    operation, count = SCHEMA[path][method], 0
    (bearer,) = [value for key, value in victim.bearer if key == "authorization"]
    modes = schemathesis.GenerationMode

    @settings(
        max_examples=most,
        deadline=None,
        database=None,
        derandomize=most == SHORT,
        suppress_health_check=list(HealthCheck),
    )
    @given(
        st.one_of(*(operation.as_strategy(generation_mode=mode) for mode in (modes.POSITIVE, modes.NEGATIVE))),
        st.booleans(),
    )
    def one(case: Any, authenticated: bool) -> None:
        nonlocal count
        count += 1
        headers = {"authorization": bearer} if authenticated else {}
        answer = case.call(base_url=victim.installation.url, headers=headers, timeout=SECONDS)
        if name == A_JWT:
            case.validate_response(answer, checks=CHECKS, excluded_checks=[response_schema_conformance])
        else:
            case.validate_response(answer, checks=CHECKS)

    one()
    record("inputs", count)


@pytest.mark.parametrize("name", OPERATIONS)
def test_an_operation(victim: Victim, name: str, record_property: Callable[[str, object], None]) -> None:
    """It is answered as its description says."""
    attacked(victim, name, SHORT, record_property)


@pytest.mark.fuzz
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", OPERATIONS)
def test_an_operation_at_length(victim: Victim, name: str, record_property: Callable[[str, object], None]) -> None:
    """The same, for as long as a night's CI allows."""
    attacked(victim, name, AT_LENGTH, record_property)
