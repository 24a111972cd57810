"""Rows to model objects and back. No queries."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import groupby
from typing import Any

from artstore_grpc import rotations
from artstore_grpc.model import (
    Account,
    AccountTrust,
    Lease,
    PendingDelivery,
    PublicKey,
    Replay,
    Revocation,
    Role,
    RotationPolicy,
    Secret,
    SigningKey,
)
from artstore_grpc.records import Checkpoint, LedgerKey, LedgerRow

SECRET_PREFIX = "secret__"
"""Before the names of a secret's columns where they are joined to an account's."""

SECRET_NAMES = tuple(name for name in Secret.__slots__ if name != "uses")

Values = Mapping[str, Any]


def account_values(account: Account) -> dict[str, Any]:
    """An account's columns."""
    return {
        "id": account.id,
        "client_id": account.client_id,
        "name": account.name,
        "description": account.description,
        "role": account.role,
        "rate_limit": account.rate_limit,
        "scopes": list(account.scopes),
        "audiences": list(account.audiences),
        "served_audiences": list(account.served_audiences),
        "introspection_only": account.introspection_only,
        "is_system": account.is_system,
        "suspended": account.suspended,
        "create_time": account.create_time,
        "update_time": account.update_time,
        "delete_time": account.delete_time,
        "version": account.version,
        "epoch": account.epoch,
        "epoch_time": account.epoch_time,
        "public_keys": [plain(key) for key in account.public_keys],
        "has_public_keys": bool(account.public_keys),
        "certificate_subject": account.certificate_subject,
        "rotation_policy": account.rotation_policy.plain(),
        "next_rotate_time": account.next_rotate_time,
        "told_expire_time": account.told_expire_time,
        "secret_expire_time": account.secret_expire_time,
        "due_time": rotations.due_time(account),
    }


def plain(key: PublicKey) -> dict[str, Any]:
    return {name: getattr(key, name) for name in PublicKey.__slots__}


def secret_values(account_id: str, secret: Secret) -> dict[str, Any]:
    """A secret's columns."""
    return {
        "id": secret.id,
        "account_id": account_id,
        "hash": secret.hash,
        "tag": secret.tag,
        "create_time": secret.create_time,
        "expire_time": secret.expire_time,
        "last_used_time": secret.last_used_time,
        "last_used_source": secret.last_used_source,
        "imported": secret.imported,
        "replace_time": secret.replace_time,
        "warned": secret.warned,
    }


def accounts(joined: Iterable[Any]) -> list[Account]:
    """Accounts out of rows that join each account to its secrets, an account's rows side by side."""
    mappings = (row._mapping for row in joined)
    return [_account(list(group)) for _, group in groupby(mappings, key=lambda values: values["id"])]


def _account(joined: list[Values]) -> Account:
    first = joined[0]
    return Account(
        id=first["id"],
        client_id=first["client_id"],
        name=first["name"],
        role=Role(first["role"]),
        create_time=first["create_time"],
        update_time=first["update_time"],
        description=first["description"],
        rate_limit=first["rate_limit"],
        scopes=tuple(first["scopes"]),
        audiences=tuple(first["audiences"]),
        served_audiences=tuple(first["served_audiences"]),
        introspection_only=first["introspection_only"],
        is_system=first["is_system"],
        suspended=first["suspended"],
        delete_time=first["delete_time"],
        version=first["version"],
        epoch=first["epoch"],
        epoch_time=first["epoch_time"],
        public_keys=tuple(PublicKey(**key) for key in first["public_keys"]),
        certificate_subject=first["certificate_subject"],
        rotation_policy=RotationPolicy.restored(first["rotation_policy"]),
        next_rotate_time=first["next_rotate_time"],
        told_expire_time=first["told_expire_time"],
        secrets=tuple(_secret(values) for values in joined if values[f"{SECRET_PREFIX}id"] is not None),
    )


def _secret(joined: Values) -> Secret:
    return Secret(**{name: joined[f"{SECRET_PREFIX}{name}"] for name in SECRET_NAMES})


def delivery(row: Any) -> PendingDelivery:
    return PendingDelivery(**{name: getattr(row, name) for name in PendingDelivery.__slots__})


def delivery_values(account_id: str, pending: PendingDelivery) -> dict[str, Any]:
    return {"account_id": account_id} | {name: getattr(pending, name) for name in PendingDelivery.__slots__}


def account_trust(row: Any) -> AccountTrust:
    return AccountTrust(row.id, row.suspended, row.delete_time is not None, row.epoch, row.epoch_time)


def ledger_row(row: Any) -> LedgerRow:
    return LedgerRow(**row._mapping)


def ledger_values(row: LedgerRow) -> dict[str, Any]:
    return {name: getattr(row, name) for name in LedgerRow.__slots__}


def replay(row: Any) -> Replay:
    return Replay(**row._mapping)


def replay_values(replay: Replay) -> dict[str, Any]:
    return {name: getattr(replay, name) for name in Replay.__slots__}


def revocation(row: Any) -> Revocation:
    return Revocation(**row._mapping)


def revocation_values(revocation: Revocation) -> dict[str, Any]:
    return {name: getattr(revocation, name) for name in Revocation.__slots__}


def signing_key(row: Any) -> SigningKey:
    return SigningKey(**row._mapping)


def signing_key_values(key: SigningKey) -> dict[str, Any]:
    return {name: getattr(key, name) for name in SigningKey.__slots__}


def ledger_key(row: Any) -> LedgerKey:
    return LedgerKey(**row._mapping)


def ledger_key_values(key: LedgerKey) -> dict[str, Any]:
    return {name: getattr(key, name) for name in LedgerKey.__slots__}


def checkpoint(row: Any) -> Checkpoint:
    return Checkpoint(**row._mapping)


def checkpoint_values(checkpoint: Checkpoint) -> dict[str, Any]:
    return {name: getattr(checkpoint, name) for name in Checkpoint.__slots__}


def lease(row: Any) -> Lease:
    return Lease(**row._mapping)
