"""What the fake's docstring says of how it differs: each difference has a case that shows it, and no case another."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import artstore.identity.testing
import pytest
from artstore.identity.v1 import audit_service_pb2 as audit_pb
from artstore.identity.v1 import key_service_pb2 as keys_pb
from artstore.identity.v1 import key_service_pb2_grpc
from artstore.identity.v1 import service_account_service_pb2 as accounts_pb
from artstore.identity.v1.audit_service_pb2_grpc import AuditServiceStub
from artstore.identity.v1.service_account_service_pb2_grpc import ServiceAccountServiceStub

from tests.api.callers import unique
from tests.api.doors import GrpcDoor, refused
from tests.contract.stands import Differs, Stand

HERE = Path(__file__).parent


def test_the_list_is_whole() -> None:
    """Names in the docstring and names in the suite are the same."""
    listed = re.findall(r"^\* ([a-z ]+): ", str(artstore.identity.testing.__doc__), re.MULTILINE)
    text = "\n".join(path.read_text() for path in HERE.glob("test_*.py"))
    shown = set(re.findall(r'^    differs\("([a-z ]+)"\)', text, re.MULTILINE))
    for mapping in re.findall(r"^DIFFERENCES = \{(.*?)\}", text, re.MULTILINE | re.DOTALL):
        shown |= set(re.findall(r'": "([a-z ]+)"', mapping))
    assert sorted(shown) == sorted(listed)


def test_keys_are_managed(service: Stand, differs: Differs) -> None:
    """KeyService lists the key that signs."""
    differs("methods")
    stub: Any = key_service_pb2_grpc.KeyServiceStub(service.channel)
    assert stub.ListSigningKeys(keys_pb.ListSigningKeysRequest(), metadata=service.bearer()).signing_keys


def test_the_ledger_is_read(service: Stand, differs: Differs) -> None:
    """AuditService lists what has happened."""
    differs("methods")
    stub: Any = AuditServiceStub(service.channel)
    assert stub.ListAuditEvents(audit_pb.ListAuditEventsRequest(), metadata=service.bearer()).audit_events


def test_health_is_served(service: Stand, differs: Differs) -> None:
    """`grpc.health.v1` says SERVING."""
    differs("health")
    check: Any = service.channel.unary_unary("/grpc.health.v1.Health/Check")
    assert check(b"", timeout=10) == b"\x08\x01"


def test_a_certificates_subject_has_one_form(service: Stand, differs: Differs) -> None:
    """It is kept in the form in which certificates are compared with it."""
    differs("client certificates")
    stub: Any = ServiceAccountServiceStub(service.channel)
    asked = accounts_pb.ServiceAccount(name=unique(), role=accounts_pb.ROLE_USER, certificate_subject="san_dns:A.B")
    request = accounts_pb.CreateServiceAccountRequest(service_account=asked)
    made = stub.CreateServiceAccount(request, metadata=service.bearer()).service_account
    assert made.certificate_subject == "san_dns:a.b"


@pytest.mark.parametrize("method", ["ListSigningKeys", "RotateSigningKey", "ListAuditEvents", "ExplainDenial"])
def test_what_is_missing_says_so(door: GrpcDoor, kind: str, method: str) -> None:
    """Without a token the real one asks for it; the fake says that it has no such method, with a reason as always."""
    module = keys_pb if "Key" in method else audit_pb
    expected = ("UNAUTHENTICATED", "MISSING_TOKEN") if kind == "real" else ("UNIMPLEMENTED", "UNIMPLEMENTED")
    with refused(*expected):
        door.call(method, getattr(module, f"{method}Request")())
