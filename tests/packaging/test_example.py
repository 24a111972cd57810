"""The first token in a minute: what README.md says to paste, pasted."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import jwt
import pytest

from tests.packaging.embedded import ROOT, Service, blocks, started


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """The embedded default, at any free ports, its first start seen through."""
    with started(tmp_path_factory.mktemp("embedded")) as service:
        yield service


def example() -> list[tuple[str, str]]:
    """The example's blocks: language and lines."""
    found = re.search(r"<!-- example: begin -->(.*?)<!-- example: end -->", (ROOT / "README.md").read_text(), re.DOTALL)
    assert found
    return blocks(found[1])


def shell(part: str) -> str:
    return next(lines for language, lines in example() if language == "sh" and part in lines)


def claims(token: str) -> dict[str, object]:
    found: dict[str, object] = jwt.decode(token.strip(), options={"verify_signature": False})
    return found


def test_by_the_command_line(service: Service) -> None:
    decoded = json.loads(service.paste(shell("token --decode")))
    assert decoded["header"]["typ"] == "at+jwt"
    assert decoded["claims"]["aud"] == "artstore"


def test_by_curl(service: Service) -> None:
    answer = json.loads(service.paste(shell("grant_type")))
    assert answer["token_type"] == "Bearer"
    assert claims(answer["access_token"])["role"] == "admin"


def test_by_python(service: Service) -> None:
    script = next(lines for language, lines in example() if language == "python")
    assert claims(service.paste(f".venv/bin/python - <<'END'\n{script}END\n"))["role"] == "admin"


def test_an_account_by_the_command_line(service: Service) -> None:
    assert "client_secret" in service.paste(shell("accounts create"))


def test_an_account_by_rest(service: Service) -> None:
    """As the README has it, with a token made for the issuer."""
    answer = json.loads(service.paste(shell("TOKEN=")))
    assert answer["service_account"]["name"] == "query"
    assert answer["client_secret"]


def test_every_block_is_tried() -> None:
    assert len(example()) == 5
