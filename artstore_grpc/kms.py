"""A key-encryption key in a key service, through a plugin that speaks the Kubernetes KMS v2 API over a UNIX socket.

Such plugins exist for the services of AWS, Azure, Google and for HashiCorp Vault (kubernetes.io, "Using a KMS provider
for data encryption"). The API has no context, and lets a plugin answer what it likes; so the key service encrypts a
fresh data key of 32 bytes, and the root key is AES-256-GCM under that, with the context authenticated:

    framed(FORMAT, the service's ciphertext, sealed root key, then name and value of each annotation)
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import timedelta
from typing import Any
from uuid import uuid4

import grpc
import grpc.aio
from cryptography.exceptions import InvalidTag
from google.protobuf.descriptor_pb2 import FieldDescriptorProto, FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessages

from artstore_grpc.errors import KeyServiceUnavailable
from artstore_grpc.key_encryption import Wrapped, another_key, damaged, opened, sealed
from artstore_grpc.vault import KEY_BYTES, framed

KMS = "kms:"
FORMAT = b"kms-v2"
SERVICE = "v2.KeyManagementService"
VERSIONS = ("v2", "v2beta1")
"""What `Status.version` may be: the plugin API was the same in both (KEP-3299)."""
TIMEOUT = timedelta(seconds=5)
"""Of one call; Kubernetes gives a plugin 3 s by default."""
MAX_KEY_ID = 1024
"""Bytes; as Kubernetes bounds it."""
MAX_ANSWER = 64 * 1024
"""Bytes of ciphertext and annotations; Kubernetes allows annotations 32 kB."""

NO_ANSWER = frozenset(
    {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.RESOURCE_EXHAUSTED}
)

OPTIONS = (
    ("grpc.default_authority", "localhost"),  # as Kubernetes sends; servers in Go refuse a path there
    ("grpc.max_receive_message_length", 2 * MAX_ANSWER),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),  # gRPC's own 120 s would make a start wait long after the plugin's
)


class NoAnswer(KeyServiceUnavailable):
    """The plugin has said nothing of the key that it was asked about."""


FIELDS: dict[str, tuple[str, ...]] = {
    "StatusRequest": (),
    "StatusResponse": ("string version", "string healthz", "string key_id"),
    "EncryptRequest": ("bytes plaintext", "string uid"),
    "EncryptResponse": ("bytes ciphertext", "string key_id", "map annotations"),
    "DecryptRequest": ("bytes ciphertext", "string uid", "string key_id", "map annotations"),
    "DecryptResponse": ("bytes plaintext",),
}
"""The messages of k8s.io/kms/apis/v2/api.proto: type and name of each field, numbered from 1."""


def file_descriptor() -> FileDescriptorProto:
    """The file that `FIELDS` describes."""
    file = FileDescriptorProto(name="k8s.io/kms/apis/v2/api.proto", package="v2", syntax="proto3")
    for name, texts in FIELDS.items():
        message = file.message_type.add(name=name)
        for number, text in enumerate(texts, 1):
            kind, _, field_name = text.partition(" ")
            field = message.field.add(name=field_name, number=number, label=FieldDescriptorProto.LABEL_OPTIONAL)
            if kind == "map":
                field.label, field.type = FieldDescriptorProto.LABEL_REPEATED, FieldDescriptorProto.TYPE_MESSAGE
                field.type_name = f".v2.{name}.AnnotationsEntry"
                entry = message.nested_type.add(name="AnnotationsEntry", options={"map_entry": True})
                entry.field.add(name="key", number=1, label=1, type=FieldDescriptorProto.TYPE_STRING)
                entry.field.add(name="value", number=2, label=1, type=FieldDescriptorProto.TYPE_BYTES)
            else:
                field.type = FieldDescriptorProto.Type.Value(f"TYPE_{kind.upper()}")
    return file


def message_types() -> dict[str, type[Message]]:
    """The messages by their names. In a pool of their own: `v2` is anybody's package."""
    return {name.removeprefix("v2."): kind for name, kind in GetMessages([file_descriptor()], DescriptorPool()).items()}


class KmsKey:
    """A `key_encryption.KeyEncryption` at a plugin's socket, `unix:///path`. The key service may change its key by
    itself: what was wrapped under the one before still opens, as long as the service can."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._types = message_types()
        self._channel = grpc.aio.insecure_channel(url, OPTIONS)

    async def current_key(self) -> str:
        """Raises KeyServiceUnavailable when the plugin isn't healthy, too."""
        status = await self._called("Status")
        if status.version not in VERSIONS:
            raise self._unavailable(f"speaks version {cleaned(status.version)} of the API, not v2")
        if status.healthz != "ok":
            raise self._unavailable(f"isn't healthy: {cleaned(status.healthz)}")
        return self._named(status.key_id)

    async def wrap(self, plain: bytes, context: bytes) -> Wrapped:
        data_key = os.urandom(KEY_BYTES)
        answer = await self._called("Encrypt", plaintext=data_key, uid=str(uuid4()))
        annotations = [part for name, value in sorted(answer.annotations.items()) for part in (name.encode(), value)]
        if not answer.ciphertext or len(answer.ciphertext) + sum(map(len, annotations)) > MAX_ANSWER:
            raise self._unavailable(f"gave no ciphertext, or more than {MAX_ANSWER:,} bytes of it")
        return Wrapped(
            self._named(answer.key_id),
            framed(FORMAT, answer.ciphertext, sealed(data_key, plain, context), *annotations),
        )

    async def unwrap(self, wrapped: Wrapped, context: bytes) -> bytes:
        if not wrapped.key_id.startswith(KMS):
            raise another_key(wrapped.key_id, await self.current_key())
        try:
            kind, ciphertext, value, *annotations = unframed(wrapped.ciphertext)
            known = dict(zip((name.decode() for name in annotations[::2]), annotations[1::2], strict=True))
            if kind != FORMAT:
                raise ValueError
        except ValueError:
            raise damaged(wrapped.key_id) from None
        data_key = await self._decrypted(wrapped.key_id, ciphertext, known)
        try:
            return opened(data_key, value, context)
        except (InvalidTag, ValueError):  # ValueError: what the service gave is no key
            current = await self.current_key()
            raise damaged(current) if current == wrapped.key_id else another_key(wrapped.key_id, current) from None

    def sealing_key(self) -> bytes | None:
        return None

    async def close(self) -> None:
        await self._channel.close()

    async def _decrypted(self, key_id: str, ciphertext: bytes, annotations: dict[str, bytes]) -> bytes:
        """The data key. A refusal of a healthy plugin whose key has another id is that key's; any other may pass, and
        so may no answer."""
        try:
            answer = await self._called(
                "Decrypt",
                ciphertext=ciphertext,
                uid=str(uuid4()),
                key_id=key_id.removeprefix(KMS),
                annotations=annotations,
            )
        except KeyServiceUnavailable as error:
            current = await self.current_key()
            if current == key_id or isinstance(error, NoAnswer):
                raise
            raise another_key(key_id, current) from None
        plain: bytes = answer.plaintext
        return plain

    async def _called(self, method: str, **fields: Any) -> Any:
        call = self._channel.unary_unary(
            f"/{SERVICE}/{method}",
            request_serializer=self._types[f"{method}Request"].SerializeToString,
            response_deserializer=self._types[f"{method}Response"].FromString,
        )
        try:
            return await call(self._types[f"{method}Request"](**fields), timeout=TIMEOUT.total_seconds())
        except grpc.aio.AioRpcError as error:
            # Its text is the plugin's, and may quote what it was sent: the code alone is told.
            kind = NoAnswer if error.code() in NO_ANSWER else KeyServiceUnavailable
            raise kind(f"The key service at {self._url} answered {method} with {error.code().name}.") from None

    def _named(self, key_id: str) -> str:
        if not key_id or len(key_id.encode()) > MAX_KEY_ID or not key_id.isprintable():
            raise self._unavailable(f"names no key, or by what isn't one line of at most {MAX_KEY_ID:,} bytes")
        return KMS + key_id

    def _unavailable(self, what: str) -> KeyServiceUnavailable:
        return KeyServiceUnavailable(f"The key service at {self._url} {what}.")


def cleaned(text: str) -> str:
    """A plugin's words, as far as they go into one line of ours."""
    return "".join(character for character in text[:200] if character.isprintable())


def unframed(value: bytes) -> Iterator[bytes]:
    """The parts of `vault.framed`. Raises ValueError when there is no such list."""
    while value:
        size = int.from_bytes(value[:4], "big")
        part, value = value[4 : 4 + size], value[4 + size :]
        if len(part) != size or size > MAX_ANSWER:
            raise ValueError("truncated")
        yield part
