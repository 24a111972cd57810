"""The how-to pages, followed: their commands are run on a real service, with real ids in the place of those shown."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace

import pytest

from tests.packaging.embedded import ROOT, Service, blocks, started

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

SHOWN = "sa_prod_ingester_0a1b2c3d"
"""The account of the pages."""


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with started(tmp_path_factory.mktemp("howtos")) as service:
        yield service


@pytest.fixture(scope="module")
def ingester(service: Service) -> Service:
    """The same, once the service of the pages was added as the page says; its id stands for the one shown."""
    service.paste(block("adding-a-service", "--request-id"))
    [made] = json.loads(service.paste("artstore-grpc accounts list --json --filter 'name = ingester'"))
    return replace(service, others={SHOWN: made["client_id"]})


def block(page: str, part: str) -> str:
    """The commands of a page that have this in them; those of a list's items are indented."""
    text = re.sub("^    ", "", (ROOT / "docs" / f"{page}.md").read_text(), flags=re.MULTILINE)
    [found] = [lines for _, lines in blocks(text) if part in lines]
    return found


def test_it_is_safe_to_add_a_service_twice(ingester: Service) -> None:
    """With its request id, as the page says; there is one account all the same."""
    assert "artstore_" in ingester.paste(block("adding-a-service", "--request-id"))


def test_narrowed(ingester: Service) -> None:
    """The account has what it was left."""
    ingester.paste(block("adding-a-service", "--scope storage.write --audience"))
    kept = json.loads(ingester.paste(f"artstore-grpc accounts get {SHOWN} --json"))
    assert (kept["scopes"], kept["audiences"]) == (["storage.write"], ["artstore"])


def test_a_leaked_secret(ingester: Service) -> None:
    """One secret is left, another than before; a revoked one leaves none."""
    before = secret_ids(ingester)
    ingester.paste(block("emergencies", "--revoke-tokens"))
    [after] = secret_ids(ingester)
    assert after not in before
    named = replace(ingester, others={**ingester.others, "SECRET_ID": after})
    assert "secret.revoked" not in named.paste(block("emergencies", "revoke-secret"))  # an administrator did it
    assert not secret_ids(ingester)


def secret_ids(service: Service) -> list[str]:
    account = json.loads(service.paste(f"artstore-grpc accounts get {SHOWN} --json"))
    return [each["id"] for each in account.get("secrets", [])]


def test_a_leaked_token(service: Service) -> None:
    """The service says that it is not live any more."""
    said = service.paste(
        "TOKEN=$(artstore-grpc token)\n"
        + block("emergencies", "token=$TOKEN")
        + 'curl -d "token=$TOKEN" -u "$ARTSTORE_CLIENT_ID:$ARTSTORE_CLIENT_SECRET" http://127.0.0.1:8080/oauth2/introspect'
    )
    assert '{"active":false}' in said.replace(" ", "")


def test_a_leaked_signing_key(service: Service) -> None:
    """Another key is active after the one command, which asks before it acts."""
    before = active_key(service)
    answered = replace(service, others={"revoke KID": f"revoke --yes {before}"})
    answered.paste(block("emergencies", "keys revoke KID"))
    assert active_key(service) != before


def active_key(service: Service) -> str:
    keys = json.loads(service.paste("artstore-grpc keys list --json"))
    [active] = [each["kid"] for each in keys if each["state"] == "active"]
    return str(active)


def test_a_denial_is_explained(service: Service) -> None:
    """By its id: the true cause, which the caller wasn't told."""
    refused = json.loads(
        service.paste("curl -d grant_type=client_credentials -u nobody:x http://127.0.0.1:8080/oauth2/token")
    )
    explained = replace(service, others={"DENIAL_ID": refused["denial_id"]}).paste(block("denials", "audit explain"))
    assert explained.strip()
    assert explained.strip() not in refused["error_description"]


def test_clients_that_cannot_be_changed(service: Service) -> None:
    """Both endpoints give a token for what such a client sends."""
    said = service.paste(block("legacy-clients", "curl")).replace("}{", "}\n{").split("\n")
    assert [json.loads(line)["token_type"] for line in said if line] == ["Bearer", "Bearer"]


def test_the_key_encryption_key_is_changed(service: Service) -> None:
    """Under a running service, which goes on; it is in the ledger, and done for good."""
    change = block("key-encryption", "keys new-key")
    service.paste(change)
    assert "root_key.rewrapped" in service.paste("artstore-grpc audit list --last 20")  # other rows may follow it
    service.paste(change.splitlines()[1])
    assert json.loads(service.paste("artstore-grpc token --decode"))["claims"]["role"] == "admin"


def test_when_it_goes(ingester: Service) -> None:
    """Suspended, then deleted."""
    ingester.paste(block("adding-a-service", "accounts suspend"))
    assert json.loads(ingester.paste(f"artstore-grpc accounts get {SHOWN} --json"))["state"] == "deleted"
