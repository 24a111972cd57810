"""A KMS v2 plugin as a program: a gRPC server on a UNIX socket, with AES-GCM keys of its own.

`python -m tests.kms.plugin SOCKET API KEYS`: API is the API's descriptors, as buf compiles them from api.proto, so that
nothing here comes from the client under test. KEYS is a JSON file that is read at each call:
`{"keys": {id: 64 hex digits}, "current": id, "healthz": "ok", "version": "v2"}`; "decrypt" is what it fails with.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessages

SERVICE = "v2.KeyManagementService"
ANNOTATION = "nonce.plugin.test"
"""Half of what is needed to decrypt: a client that loses annotations fails."""


class Plugin:
    """The three methods."""

    def __init__(self, types: dict[str, Any], keys: Path) -> None:
        self._types = types
        self._keys = keys

    @property
    def known(self) -> dict[str, Any]:
        known: dict[str, Any] = json.loads(self._keys.read_text())
        return known

    def status(self, _request: Any, _context: grpc.ServicerContext) -> Any:
        known = self.known
        return self._types["v2.StatusResponse"](
            version=known.get("version", "v2"), healthz=known.get("healthz", "ok"), key_id=known["current"]
        )

    def encrypt(self, request: Any, context: grpc.ServicerContext) -> Any:
        known, nonce = self.known, os.urandom(12)
        if not request.uid:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "no uid")
        ciphertext = self._aead(known["current"]).encrypt(nonce, request.plaintext, None)
        return self._types["v2.EncryptResponse"](
            ciphertext=ciphertext, key_id=known["current"], annotations={ANNOTATION: nonce}
        )

    def decrypt(self, request: Any, context: grpc.ServicerContext) -> Any:
        if code := self.known.get("decrypt"):
            context.abort(grpc.StatusCode[code], "not now")
        if request.key_id not in self.known["keys"]:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"unknown key {request.key_id}")
        try:
            plain = self._aead(request.key_id).decrypt(request.annotations[ANNOTATION], request.ciphertext, None)
        except (InvalidTag, ValueError):
            context.abort(grpc.StatusCode.INTERNAL, "decryption failed")
        return self._types["v2.DecryptResponse"](plaintext=plain)

    def _aead(self, key_id: str) -> AESGCM:
        return AESGCM(bytes.fromhex(self.known["keys"][key_id]))


def served(socket: str, api: bytes, keys: Path) -> grpc.Server:
    """The server, bound and started."""
    types = GetMessages(FileDescriptorSet.FromString(api).file, DescriptorPool())
    plugin = Plugin(types, keys)
    handlers = {
        name: grpc.unary_unary_rpc_method_handler(
            behavior,
            request_deserializer=types[f"v2.{name}Request"].FromString,
            response_serializer=types[f"v2.{name}Response"].SerializeToString,
        )
        for name, behavior in (("Status", plugin.status), ("Encrypt", plugin.encrypt), ("Decrypt", plugin.decrypt))
    }
    server = grpc.server(ThreadPoolExecutor(4))
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
    server.add_insecure_port(f"unix://{socket}")
    server.start()
    return server


def main(socket: str, api: str, keys: str) -> None:
    server = served(socket, Path(api).read_bytes(), Path(keys))
    signal.signal(signal.SIGTERM, lambda *_: server.stop(None))
    print("serving", flush=True)
    server.wait_for_termination()


if __name__ == "__main__":
    main(*sys.argv[1:])
