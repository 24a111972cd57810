"""The methods of the API that the authority has, each with who may call it: the way of a call from bytes to answer.

In the service's order: decoding, what is wrong whoever sends it, authentication, the account's limit, the scope, the
method. A method without a row in the table is UNIMPLEMENTED.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any

from artstore.identity.testing.accounts import Account, Accounts, Caller, require_scopes
from artstore.identity.testing.callers import Credentials, fields_of, gathered, is_basic
from artstore.identity.testing.pages import listed
from artstore.identity.testing.parts import Parts
from artstore.identity.testing.refusals import invalid, refused
from artstore.identity.testing.tokens import ANY_ACCOUNT, check_issue, check_token
from artstore.identity.testing.trust import check_watch
from artstore.identity.testing.updates import update
from artstore.identity.v1 import audit_service_pb2, key_service_pb2, service_account_service_pb2, token_service_pb2
from artstore.identity.v1 import service_account_service_pb2 as pb
from artstore.identity.v1 import token_service_pb2 as tokens_pb
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.message import DecodeError, Message
from google.protobuf.message_factory import GetMessageClass

READ_ACCOUNTS = "identity.accounts.read"
MAX_MESSAGE_BYTES = 64 * 1024

SERVICES: tuple[ServiceDescriptor, ...] = tuple(
    service
    for module in (token_service_pb2, service_account_service_pb2, key_service_pb2, audit_service_pb2)
    for service in module.DESCRIPTOR.services_by_name.values()
)
NAMES = tuple(method.name for service in SERVICES for method in service.methods)
"""Every method of the API, by its short name."""


class By(Enum):
    """How a method's caller proves who it is."""

    NOTHING = auto()
    CLIENT = auto()
    """Client credentials, in the request's fields or in Basic metadata."""
    TOKEN = auto()
    """An access token whose sole audience is the issuer."""
    TOKEN_OF_ANYBODY = auto()
    """An access token of any live account, for the issuer or for the default audience."""
    TOKEN_OR_SELF = auto()
    """As TOKEN; or Basic metadata, or an assertion in the request's fields."""


@dataclass(frozen=True)
class Call:
    """What a call says beside its message."""

    authorization: str | None
    source: str


Run = Callable[[Any, Any], Message]
"""A method: its message and its caller (None where none is asked for) in, its answer out."""


@dataclass(frozen=True)
class Method:
    """A method's row. One without `run` answers by a stream, which server.py follows."""

    run: Run | None
    by: By
    scope: str = ""
    check: Callable[[Any], None] = lambda _: None


class Methods:
    """The methods of one authority. Whoever calls holds its lock."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._table = token_methods(parts) | account_methods(parts)

    def admitted(self, descriptor: MethodDescriptor, data: bytes, call: Call) -> tuple[Method, Any, Caller | None]:
        """The method, its message and its caller, once everything that comes before the method has passed."""
        method = self._table.get(descriptor.name)
        if method is None:
            raise refused("UNIMPLEMENTED", "The fake authority has no such method.")
        message = parsed(descriptor, data)
        method.check(message)
        caller = self._authenticated(method.by, message, call)
        if caller is not None:
            self._parts.callers.charge(caller.account)
            if method.scope and caller.by_token and method.scope not in caller.scopes:
                sentence = "The token lacks the scope that this needs."
                raise refused("PERMISSION_DENIED", sentence, reason="INSUFFICIENT_SCOPE")
        return method, message, caller

    def _authenticated(self, by: By, message: Message, call: Call) -> Caller | None:
        callers = self._parts.callers
        if by is By.NOTHING:
            return None
        if by is By.CLIENT:
            return callers.client(gathered(fields_of(message), call.authorization), call.source)
        if by is By.TOKEN_OR_SELF:
            own = fields_of(message)
            if is_basic(call.authorization) or own != Credentials():
                return callers.client(gathered(own, call.authorization), call.source)
        return callers.bearer(call.authorization, default_audience_too=by is By.TOKEN_OF_ANYBODY)


def parsed(descriptor: MethodDescriptor, data: bytes) -> Message:
    if len(data) > MAX_MESSAGE_BYTES:
        sentence = f"The message exceeds {MAX_MESSAGE_BYTES:,} bytes."
        raise refused("INVALID_REQUEST", sentence, reason="MESSAGE_TOO_LARGE")
    try:
        return GetMessageClass(descriptor.input_type).FromString(data)
    except DecodeError:
        sentence = "The message can't be decoded."
        raise refused("INVALID_REQUEST", sentence, reason="UNDECODABLE_MESSAGE") from None


def token_methods(parts: Parts) -> dict[str, Method]:
    """TokenService."""
    tokens = parts.tokens

    def revoke(request: tokens_pb.RevokeTokenRequest, caller: Caller) -> Message:
        tokens.revoke(caller, request.token)
        return tokens_pb.RevokeTokenResponse()

    def revocations(request: Message, caller: None) -> Message:
        sentence = "Over gRPC this is for gateways that the service trusts."
        raise refused("PERMISSION_DENIED", sentence, reason="NOT_A_GATEWAY")

    return {
        "IssueToken": Method(lambda request, caller: tokens.issue(caller, request), By.CLIENT, check=check_issue),
        "IntrospectToken": Method(
            lambda request, caller: tokens.introspect(caller, request.token), By.CLIENT, check=check_token
        ),
        "RevokeToken": Method(revoke, By.CLIENT, check=check_token),
        "GetJsonWebKeySet": Method(lambda request, caller: parts.key_set(), By.NOTHING),
        "GetServerMetadata": Method(lambda request, caller: parts.metadata(), By.NOTHING),
        "GetRevocations": Method(revocations, By.NOTHING),
        "WatchTrust": Method(None, By.TOKEN_OF_ANYBODY, check=check_watch),
    }


def account_methods(parts: Parts) -> dict[str, Method]:
    """ServiceAccountService, as far as it goes here."""
    accounts, rotation = parts.accounts, parts.rotation

    def get(request: pb.GetServiceAccountRequest, caller: Caller) -> Message:
        return pb.GetServiceAccountResponse(service_account=accounts.message(accounts.get(request.id)))

    def page(request: pb.ListServiceAccountsRequest, caller: Caller) -> Message:
        found, token = listed(accounts, request, parts.clock())
        return pb.ListServiceAccountsResponse(service_accounts=map(accounts.message, found), next_page_token=token)

    def change(request: pb.UpdateServiceAccountRequest, caller: Caller) -> Message:
        changed = update(accounts, request, caller)
        return pb.UpdateServiceAccountResponse(service_account=accounts.message(changed))

    def revoke_secret(request: pb.RevokeSecretRequest, caller: Caller) -> Message:
        return pb.RevokeSecretResponse(service_account=accounts.message(rotation.revoke(request, caller)))

    return {
        "CreateServiceAccount": writes(lambda request, caller: create(parts, request, caller)),
        "GetServiceAccount": Method(get, By.TOKEN, READ_ACCOUNTS),
        "ListServiceAccounts": Method(page, By.TOKEN, READ_ACCOUNTS),
        "UpdateServiceAccount": writes(change),
        "DeleteServiceAccount": writes(verb(accounts, parts.delete, pb.DeleteServiceAccountResponse)),
        "UndeleteServiceAccount": writes(
            verb(accounts, accounts.undelete, pb.UndeleteServiceAccountResponse, deleted=True)
        ),
        "SuspendServiceAccount": writes(verb(accounts, parts.suspend, pb.SuspendServiceAccountResponse)),
        "ActivateServiceAccount": writes(verb(accounts, accounts.activate, pb.ActivateServiceAccountResponse)),
        "RotateSecret": Method(rotation.rotate, By.TOKEN_OR_SELF, ANY_ACCOUNT),
        "RevokeSecret": writes(revoke_secret),
    }


def writes(run: Run) -> Method:
    return Method(run, By.TOKEN, ANY_ACCOUNT)


def verb(
    accounts: Accounts,
    change: Callable[[Account, Caller], None],
    answer: Callable[..., Message],
    *,
    deleted: bool = False,
) -> Run:
    """A method that changes one account, and answers with it."""

    def run(request: Any, caller: Caller) -> Message:
        account = accounts.target(request, deleted=deleted)
        change(account, caller)
        return answer(service_account=accounts.message(account))

    return run


def create(parts: Parts, request: pb.CreateServiceAccountRequest, caller: Caller) -> pb.CreateServiceAccountResponse:
    """CreateServiceAccount."""
    if not request.HasField("service_account"):
        raise invalid("service_account", "is missing")
    account = parts.accounts.drafted(request.service_account, without_secret=request.without_secret)
    require_scopes(caller, account)

    def work() -> pb.CreateServiceAccountResponse:
        parts.accounts.add(account)
        text = account.secrets[0].text if account.secrets else ""
        return pb.CreateServiceAccountResponse(service_account=parts.accounts.message(account), client_secret=text)

    return parts.replays.answered(request, caller, pb.CreateServiceAccountResponse, work)
