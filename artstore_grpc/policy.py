"""Who may call each method: one table, default deny. A method without a row is never served.

The table knows methods by their full gRPC name; the door that a call came in by makes no difference.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto

from artstore_grpc.model import ACCOUNTS_READ, ACCOUNTS_WRITE, AUDIT_READ, KEYS_WRITE

PACKAGE = "artstore.identity.v1"
ISSUE_TOKEN = f"{PACKAGE}.TokenService/IssueToken"


class Authentication(Enum):
    """How a method's caller proves who it is."""

    NONE = auto()
    """Public."""
    CLIENT = auto()
    """Client credentials, in the request's fields or in Basic metadata (RFC 6749 §2.3)."""
    BEARER = auto()
    """An access token whose sole audience is the issuer."""
    BEARER_OF_ANYBODY = auto()
    """An access token of any live account, for the issuer or for the default audience."""
    BEARER_OR_SELF = auto()
    """As BEARER; or Basic metadata, or an assertion in the request's fields, for the caller's own account only."""


@dataclass(frozen=True, slots=True)
class Rule:
    """A method's row: how its caller authenticates, and the scope that a bearer's token must have."""

    authentication: Authentication
    scope: str = ""
    serves_in_outage: bool = False
    """Whether it goes on while the database is down; the others answer UNAVAILABLE at once."""


PUBLIC = Rule(Authentication.NONE, serves_in_outage=True)
ISSUE = Rule(Authentication.CLIENT, serves_in_outage=True)
CLIENT = Rule(Authentication.CLIENT)
READ_ACCOUNTS = Rule(Authentication.BEARER, ACCOUNTS_READ)
WRITE_ACCOUNTS = Rule(Authentication.BEARER, ACCOUNTS_WRITE)
WRITE_KEYS = Rule(Authentication.BEARER, KEYS_WRITE)
READ_AUDIT = Rule(Authentication.BEARER, AUDIT_READ)

POLICY: dict[str, Rule] = {
    ISSUE_TOKEN: ISSUE,
    f"{PACKAGE}.TokenService/IntrospectToken": CLIENT,
    f"{PACKAGE}.TokenService/RevokeToken": CLIENT,
    f"{PACKAGE}.TokenService/GetJsonWebKeySet": PUBLIC,
    f"{PACKAGE}.TokenService/GetServerMetadata": PUBLIC,
    f"{PACKAGE}.TokenService/WatchTrust": Rule(Authentication.BEARER_OF_ANYBODY, serves_in_outage=True),
    f"{PACKAGE}.TokenService/GetRevocations": PUBLIC,
    f"{PACKAGE}.ServiceAccountService/CreateServiceAccount": WRITE_ACCOUNTS,
    f"{PACKAGE}.ServiceAccountService/GetServiceAccount": READ_ACCOUNTS,
    f"{PACKAGE}.ServiceAccountService/ListServiceAccounts": READ_ACCOUNTS,
    f"{PACKAGE}.ServiceAccountService/UpdateServiceAccount": WRITE_ACCOUNTS,
    f"{PACKAGE}.ServiceAccountService/DeleteServiceAccount": WRITE_ACCOUNTS,
    f"{PACKAGE}.ServiceAccountService/UndeleteServiceAccount": WRITE_ACCOUNTS,
    f"{PACKAGE}.ServiceAccountService/SuspendServiceAccount": WRITE_ACCOUNTS,
    f"{PACKAGE}.ServiceAccountService/ActivateServiceAccount": WRITE_ACCOUNTS,
    f"{PACKAGE}.ServiceAccountService/RotateSecret": Rule(Authentication.BEARER_OR_SELF, ACCOUNTS_WRITE),
    f"{PACKAGE}.ServiceAccountService/RevokeSecret": WRITE_ACCOUNTS,
    f"{PACKAGE}.ServiceAccountService/ImportServiceAccounts": WRITE_ACCOUNTS,
    f"{PACKAGE}.ServiceAccountService/PlanRotations": READ_ACCOUNTS,
    f"{PACKAGE}.ServiceAccountService/RunRotations": WRITE_ACCOUNTS,
    f"{PACKAGE}.KeyService/ListSigningKeys": WRITE_KEYS,
    f"{PACKAGE}.KeyService/PrepareSigningKey": WRITE_KEYS,
    f"{PACKAGE}.KeyService/ActivateSigningKey": WRITE_KEYS,
    f"{PACKAGE}.KeyService/RetireSigningKey": WRITE_KEYS,
    f"{PACKAGE}.KeyService/RevokeSigningKey": WRITE_KEYS,
    f"{PACKAGE}.KeyService/RotateSigningKey": WRITE_KEYS,
    f"{PACKAGE}.AuditService/ListAuditEvents": READ_AUDIT,
    f"{PACKAGE}.AuditService/ListAuditCheckpoints": READ_AUDIT,
    f"{PACKAGE}.AuditService/VerifyAuditLog": READ_AUDIT,
    f"{PACKAGE}.AuditService/ExplainDenial": READ_AUDIT,
}
