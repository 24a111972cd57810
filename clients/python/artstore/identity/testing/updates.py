"""UpdateServiceAccount: which fields a mask changes (AIP-134), and who may change what."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from artstore.identity.testing import account_fields
from artstore.identity.testing.accounts import (
    DEFAULT_RATE_LIMIT,
    Account,
    Accounts,
    Caller,
    forbid_oneself,
    require_scopes,
)
from artstore.identity.testing.public_keys import registered
from artstore.identity.testing.refusals import invalid
from artstore.identity.v1 import service_account_service_pb2 as pb

MUTABLE = (
    "name",
    "description",
    "role",
    "rate_limit",
    "scopes",
    "audiences",
    "served_audiences",
    "introspection_only",
    "public_keys",
    "certificate_subject",
)
"""What a mask may name here."""


def masked(message: pb.ServiceAccount, paths: tuple[str, ...]) -> dict[str, Any]:
    """The values that an update asks for: of the paths named, `*` for all, or of the fields that are set."""
    if any(path != "*" and path not in MUTABLE for path in paths):
        raise invalid("update_mask", f"may name {', '.join(MUTABLE)}, or be *")
    if "*" in paths and len(paths) > 1:
        raise invalid("update_mask", "must be * alone")
    names = MUTABLE if paths == ("*",) else paths or tuple(name for name in MUTABLE if getattr(message, name))
    if not names:
        raise invalid("update_mask", "names nothing to change")
    return {name: value_of(message, name) for name in names}


def value_of(message: pb.ServiceAccount, name: str) -> Any:
    value = getattr(message, name)
    if name == "role":
        return account_fields.role(value)
    if name == "rate_limit":
        return value or DEFAULT_RATE_LIMIT
    if name == "public_keys":
        return registered(value)
    return tuple(value) if name in ("scopes", "audiences", "served_audiences") else value


def checked(account: Account) -> Account:
    return replace(
        account,
        name=account_fields.name(account.name),
        description=account_fields.description(account.description),
        rate_limit=account_fields.rate_limit(account.rate_limit),
        scopes=account_fields.scopes(account.scopes, account.role),
        audiences=account_fields.audiences(account.audiences),
        served_audiences=account_fields.audiences(account.served_audiences, "served_audiences"),
    )


def rights(account: Account) -> tuple[object, ...]:
    """What nobody changes of themselves: what they may do, and the keys that they prove themselves by."""
    return (
        account.role,
        account.scopes,
        account.audiences,
        account.introspection_only,
        account.public_keys,
        account.certificate_subject,
    )


def update(accounts: Accounts, request: pb.UpdateServiceAccountRequest, caller: Caller) -> Account:
    """The changed account."""
    if not request.HasField("service_account"):
        raise invalid("service_account", "is missing")
    changes = masked(request.service_account, tuple(request.update_mask.paths))
    account = accounts.target(request.service_account)
    require_scopes(caller, account)
    changed = checked(replace(account, **changes))
    require_scopes(caller, changed)
    if rights(changed) != rights(account):
        forbid_oneself(caller, account)
    accounts.require_free(changed)
    for name in MUTABLE:
        setattr(account, name, getattr(changed, name))
    accounts.save(account)
    return account
