"""Accounts, roles, states, times and durations: protobuf ⇄ model."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from artstore.identity.v1 import service_account_service_pb2 as pb
from artstore.identity.v1.token_service_pb2 import JsonWebKey
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from artstore_grpc import model
from artstore_grpc.accounts import Draft
from artstore_grpc.audiences import Audiences
from artstore_grpc.changes import Target, etag
from artstore_grpc.errors import IdentityError, invalid
from artstore_grpc.imports import Asked
from artstore_grpc.public_keys import registered

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
    "rotation_policy",
)
"""What an update mask may name."""


EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
JWK_FIELDS = frozenset(field.name for field in JsonWebKey.DESCRIPTOR.fields)
MAX_DURATION_SECONDS = 315_576_000_000
MAX_NANOS = 999_999_999
"""google/protobuf/duration.proto."""


def timestamp(value: datetime | None) -> Timestamp | None:
    if value is None:
        return None
    since = value - EPOCH
    return Timestamp(seconds=since.days * 86_400 + since.seconds, nanos=since.microseconds * 1000)


def jwk_message(jwk: Mapping[str, str]) -> JsonWebKey:
    """A public key (RFC 7517 §4)."""
    return JsonWebKey(**{name: value for name, value in jwk.items() if name in JWK_FIELDS})


def duration(value: timedelta) -> Duration:
    made = Duration()
    made.FromTimedelta(value)
    return made


def interval(value: Duration, field: str) -> timedelta:
    """A duration from the wire. Raises InvalidRequest for one outside `google.protobuf.Duration`'s own bounds, which
    nothing on the way here has checked: one that large is no timedelta."""
    opposed = (value.seconds < 0 < value.nanos) or (value.nanos < 0 < value.seconds)
    if abs(value.seconds) > MAX_DURATION_SECONDS or abs(value.nanos) > MAX_NANOS or opposed:
        raise invalid(field, "is not a valid duration")
    return value.ToTimedelta()


def time_of(value: Timestamp, field: str) -> datetime:
    """A time from the wire, to the microsecond. Raises InvalidRequest for one outside of what `datetime` can say, which
    is what `google.protobuf.Timestamp` may."""
    try:
        if not 0 <= value.nanos <= MAX_NANOS:
            raise OverflowError
        return EPOCH + timedelta(seconds=value.seconds, microseconds=value.nanos // 1000)
    except OverflowError:
        raise invalid(field, "is not a valid time") from None


def role_of(value: int) -> model.Role:
    """A role from the wire. Raises InvalidRequest for none and for an unknown one."""
    if value == pb.ROLE_UNSPECIFIED:
        raise invalid("role", "is missing")
    if value not in pb.Role.values():
        raise invalid("role", "is unknown")
    return model.Role(pb.Role.Name(value).removeprefix("ROLE_").lower())  # type: ignore[arg-type]


def secret_message(secret: model.Secret) -> pb.Secret:
    return pb.Secret(
        id=secret.id,
        create_time=timestamp(secret.create_time),
        expire_time=timestamp(secret.expire_time),
        last_used_time=timestamp(secret.last_used_time),
        last_used_source=secret.last_used_source,
        uses=[pb.SecretUse(source=use.source, last_used_time=timestamp(use.time)) for use in secret.uses],
        imported=secret.imported,
    )


def policy_message(policy: model.RotationPolicy) -> pb.RotationPolicy | None:
    """A policy; None for an account that is rotated by hand."""
    if policy == model.BY_HAND:
        return None
    return pb.RotationPolicy(
        mode=pb.RotationMode.Value(f"ROTATION_MODE_{policy.mode.name}"),
        schedule=policy.schedule,
        overlap=duration(policy.overlap),
        sink=policy.sink,
        destination=policy.destination,
    )


def policy_of(message: pb.RotationPolicy) -> model.RotationPolicy:
    """A policy from the wire, not checked yet but for its mode. Raises InvalidRequest."""
    if message.mode not in pb.RotationMode.values():
        raise invalid("rotation_policy.mode", "is unknown")
    name = pb.RotationMode.Name(message.mode).removeprefix("ROTATION_MODE_")
    mode = model.RotationMode.MANUAL if message.mode == pb.ROTATION_MODE_UNSPECIFIED else model.RotationMode[name]
    overlap = model.DEFAULT_OVERLAP
    if message.HasField("overlap"):
        overlap = interval(message.overlap, "rotation_policy.overlap")
    return model.RotationPolicy(mode, message.schedule, overlap, message.sink, message.destination)


def delivery_message(pending: model.PendingDelivery | None) -> pb.SecretDelivery | None:
    if pending is None:
        return None
    return pb.SecretDelivery(
        secret_id=pending.secret_id,
        attempts=pending.attempts,
        next_attempt_time=timestamp(pending.next_attempt_time),
        last_error=pending.last_error,
    )


def public_key_message(key: model.PublicKey) -> pb.PublicKey:
    return pb.PublicKey(thumbprint=key.thumbprint, kid=key.kid, alg=key.algorithm, **key.jwk)


def offered(message: pb.PublicKey) -> dict[str, str]:
    """A key as a JWK, not checked yet; `thumbprint` is output only."""
    return {field.name: value for field, value in message.ListFields() if field.name != "thumbprint"}


def account_message(account: model.Account, audiences: Audiences, now: datetime) -> pb.ServiceAccount:
    """An account as it stands at `now`, its defaults resolved."""
    return pb.ServiceAccount(
        id=account.id,
        client_id=account.client_id,
        name=account.name,
        description=account.description,
        role=pb.Role.Value(f"ROLE_{account.role.name}"),
        state=pb.State.Value(f"STATE_{account.state(now).name}"),
        rate_limit=account.rate_limit,
        scopes=account.granted_scopes,
        audiences=audiences.allowed(account),
        served_audiences=account.served_audiences,
        introspection_only=account.introspection_only,
        public_keys=[public_key_message(key) for key in account.public_keys],
        certificate_subject=account.certificate_subject,
        is_system=account.is_system,
        secrets=[secret_message(secret) for secret in account.live_secrets(now)],
        etag=etag(account),
        create_time=timestamp(account.create_time),
        update_time=timestamp(account.update_time),
        delete_time=timestamp(account.delete_time),
        purge_time=timestamp(account.purge_time),
        secret_expire_time=timestamp(account.secret_expire_time),
        rotation_policy=policy_message(account.rotation_policy),
        next_rotate_time=timestamp(account.next_rotate_time),
        secret_delivery=delivery_message(account.delivery),
    )


def draft(message: pb.ServiceAccount, *, without_secret: bool = False) -> Draft:
    """What to create; output-only fields are ignored (AIP-203)."""
    return Draft(**changes(message, MUTABLE), without_secret=without_secret)


def asked(message: pb.ImportedServiceAccount) -> Asked | IdentityError:
    """What to import, or why that can't be read: the others of its batch are no worse for it."""
    try:
        if not message.HasField("service_account"):
            raise invalid("service_account", "is missing")
        expires = message.HasField("secret_expire_time")
        return Asked(
            draft(message.service_account),
            message.client_id,
            message.secret_hash,
            time_of(message.secret_expire_time, "secret_expire_time") if expires else None,
        )
    except IdentityError as error:
        return error


def changes(message: pb.ServiceAccount, names: tuple[str, ...]) -> dict[str, Any]:
    """The values of fields as the model has them."""
    return {name: value_of(message, name) for name in names}


def value_of(message: pb.ServiceAccount, name: str) -> Any:
    value = getattr(message, name)
    if name == "role":
        return role_of(value)
    if name == "rate_limit":
        return value or model.DEFAULT_RATE_LIMIT
    if name == "public_keys":
        return registered([offered(key) for key in value])
    if name == "rotation_policy":
        return policy_of(value)
    return tuple(value) if name in ("scopes", "audiences", "served_audiences") else value


def masked(message: pb.ServiceAccount, paths: tuple[str, ...]) -> Mapping[str, Any]:
    """The changes an update asks for (AIP-134): the paths named, `*` for all, or the fields that are set."""
    for path in paths:
        if path != "*" and path not in MUTABLE:
            raise invalid("update_mask", f"may name {', '.join(MUTABLE)}, or be *")
    if "*" in paths:
        if len(paths) > 1:
            raise invalid("update_mask", "must be * alone")
        return changes(message, MUTABLE)
    names = paths or tuple(name for name in MUTABLE if given(message, name))
    if not names:
        raise invalid("update_mask", "names nothing to change")
    return changes(message, names)


def given(message: pb.ServiceAccount, name: str) -> bool:
    return message.HasField("rotation_policy") if name == "rotation_policy" else bool(getattr(message, name))


def target(message: Any) -> Target:
    """The account that a request names by `id`, and its `etag`."""
    return Target(message.id, message.etag)
