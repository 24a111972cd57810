"""The cases of the API that are the contract: those of `tests/api` that look at nothing but answers.

They are taken over as they are, so that the fake is held to what the real service is held to, and a new case of the API
is a new case here.
"""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

import pytest

from tests.contract.stands import Differs

NONE: Mapping[str, str] = {}


def taken(
    module: ModuleType, *, inside: Mapping[str, str] = NONE, differences: Mapping[str, str] = NONE
) -> dict[str, Any]:
    """The tests and fixtures of a module.

    `inside`: tests that look inside the real service, and where; they are run for neither here.
    `differences`: tests that the fake fails, or single cases of one (`test_name[case]`), with the names of its
    differences.
    """
    names = [name for name in vars(module) if name.startswith("test_")]
    unknown = {*inside, *(name.partition("[")[0] for name in differences)} - set(names)
    assert not unknown, f"{module.__name__} has no {unknown}"
    found = {name: value for name, value in vars(module).items() if is_fixture(value)}
    for name in names:
        if name not in inside:
            found[name] = declared(vars(module)[name], differences)
    return found


def is_fixture(value: object) -> bool:
    return type(value).__name__ == "FixtureFunctionDefinition"


def declared(case: Callable[..., None], differences: Mapping[str, str]) -> Callable[..., None]:
    """The test, with what of it is known to fail on the fake."""
    known = {name: why for name, why in differences.items() if name.partition("[")[0] == case.__name__}
    if not known:
        return case

    @functools.wraps(case)
    def wrapper(request: pytest.FixtureRequest, differs: Differs, **arguments: Any) -> None:
        this = re.sub(r"\[(?:real|fake)-?(.*)\]$", lambda match: f"[{match[1]}]" if match[1] else "", request.node.name)
        if case.__name__ in known or this in known:
            differs(known.get(this) or known[case.__name__])
        case(**arguments)

    signature = inspect.signature(case)
    more = [inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY) for name in ("request", "differs")]
    wrapper.__signature__ = signature.replace(parameters=[*signature.parameters.values(), *more])  # type: ignore[attr-defined]
    return wrapper
