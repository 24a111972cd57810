"""The policy table: every method has its row, and a method without one is not served."""

from __future__ import annotations

import grpc

from artstore_grpc import errors
from artstore_grpc.errors import OUTCOMES, IdentityError
from artstore_grpc.model import SCOPES
from artstore_grpc.policy import POLICY, Authentication
from artstore_grpc.rpc.descriptors import full_name, walked
from artstore_grpc.rpc.status import code_of, from_status, to_status


def test_every_method_has_a_row_and_every_row_a_method() -> None:
    """Descriptors and table name the same methods: a new one without a decision fails here."""
    assert {full_name(method) for method in walked()} == set(POLICY)


def test_every_bearer_rule_names_a_scope() -> None:
    """A method that takes a token says which scope it needs; the others need none."""
    for name, rule in POLICY.items():
        takes_token = rule.authentication in (Authentication.BEARER, Authentication.BEARER_OR_SELF)
        assert (rule.scope in SCOPES) == takes_token, name


def subclasses(kind: type[IdentityError]) -> set[type[IdentityError]]:
    return {kind for child in kind.__subclasses__() for kind in ({child} | subclasses(child))}


def test_every_error_is_in_the_table() -> None:
    """Each outcome has a gRPC code, an HTTP status and an OAuth code, and its own reason."""
    assert subclasses(IdentityError) == set(OUTCOMES)
    assert len({kind.default_reason for kind in OUTCOMES}) == len(OUTCOMES)


def test_every_error_survives_the_wire() -> None:
    """An error made into a google.rpc.Status and back is the same class, reason, sentence and denial."""
    for kind in OUTCOMES:
        error = kind(reason="A_REASON")
        error.denial_id = "denial"
        back = from_status(code_of(error), to_status(error), "")
        assert (type(back), back.reason, back.message, back.denial_id) == (kind, "A_REASON", error.message, "denial")


def test_a_foreign_status_is_read_by_its_code() -> None:
    """What another server or gRPC's own core answers becomes the plain class of its code, not a rarer one's."""
    for code, kind in (
        (grpc.StatusCode.UNIMPLEMENTED, errors.Unimplemented),
        (grpc.StatusCode.PERMISSION_DENIED, errors.PermissionDenied),
        (grpc.StatusCode.INVALID_ARGUMENT, errors.InvalidRequest),
        (grpc.StatusCode.UNAVAILABLE, errors.Unavailable),
        (grpc.StatusCode.UNKNOWN, errors.Internal),
    ):
        assert type(from_status(code, None, "foreign text")) is kind
