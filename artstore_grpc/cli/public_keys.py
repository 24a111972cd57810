"""Public keys in files, as `--public-key` takes them: a JWK, a JWK set, or PEM."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import click
from artstore.identity import PublicKey
from joserfc import jwk
from joserfc.errors import JoseError, SecurityWarning
from joserfc.jwk import OctKey

MAX_FILE_BYTES = 64 * 1024
SENT = tuple(field.name for field in PublicKey.DESCRIPTOR.fields if field.name != "thumbprint")


class KeyFile(click.ParamType):  # type: ignore[type-arg]  # generic for the type checker only
    """A file's public keys. A private key is refused, since it has no business on its way to a server."""

    name = "file"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> list[PublicKey]:
        if not isinstance(value, str):
            return list(value)
        if not value:
            return []  # says that the list was given, as with the other lists
        try:
            with Path(value).open("rb") as file:
                documents = public_jwks(file.read(MAX_FILE_BYTES + 1).decode())
            return [PublicKey(**{name: key[name] for name in SENT if name in key}) for key in documents]
        except OSError as error:
            self.fail(f"can't be read: {error.strerror}", param, ctx)
        except (JoseError, ValueError, TypeError, KeyError, AttributeError):
            self.fail("holds no public key: a JWK, a JWK set or PEM, without a private one", param, ctx)


def public_jwks(text: str) -> list[dict[str, Any]]:
    """The keys in a text, as JWKs. Raises ValueError and JoseError, for private keys too."""
    if text.lstrip().startswith("{"):
        document = json.loads(text)
        found = document.get("keys", [document])
        for each in found:
            _refuse_private(jwk.import_key(each))
        return list(found)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SecurityWarning)  # that the type isn't named
        key = jwk.import_key(text)
    _refuse_private(key)
    return [dict(key.as_dict(private=False))]


def _refuse_private(key: jwk.Key) -> None:
    if isinstance(key, OctKey) or key.is_private:
        raise ValueError("not a public key")
