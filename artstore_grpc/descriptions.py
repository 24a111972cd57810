"""An account as the ledger tells it: what verbs and masks change, before and after; never hashes, nor a secret."""

from __future__ import annotations

from typing import Any

from artstore_grpc.model import Account, RotationPolicy


def described(account: Account) -> dict[str, Any]:
    """An account as the ledger tells it: what verbs and masks change, never hashes."""
    return {
        "name": account.name,
        "description": account.description,
        "role": account.role.value,
        "rate_limit": account.rate_limit,
        "scopes": list(account.scopes),
        "audiences": list(account.audiences),
        "served_audiences": list(account.served_audiences),
        "introspection_only": account.introspection_only,
        "public_keys": {key.thumbprint: {"algorithm": key.algorithm, "kid": key.kid} for key in account.public_keys},
        "certificate_subject": account.certificate_subject,
        "rotation_policy": described_policy(account.rotation_policy),
        "suspended": account.suspended,
        "deleted": account.delete_time is not None,
        "secrets": {secret.id: secret.expire_time.isoformat() for secret in account.secrets},
    }


def described_policy(policy: RotationPolicy) -> dict[str, Any]:
    return {
        "mode": policy.mode.value,
        "schedule": policy.schedule,
        "overlap_seconds": int(policy.overlap.total_seconds()),
        "sink": policy.sink,
        "destination": policy.destination,
    }


def differences(before: Account, after: Account) -> dict[str, dict[str, Any]]:
    """What changed, before and after."""
    old, new = described(before), described(after)
    changed = [name for name in old if old[name] != new[name]]
    return {"before": {name: old[name] for name in changed}, "after": {name: new[name] for name in changed}}
