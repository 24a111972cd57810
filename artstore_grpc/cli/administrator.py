"""The first administrator's credentials, handed to whoever starts the embedded default: shown once on a terminal, else
in a file of mode 0600. Either way with lines that get a token when pasted.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import sys
import tempfile
from pathlib import Path

from artstore_grpc.installation import Administrator
from artstore_grpc.settings import Address

FILE_STEM = "administrator"
ANY_HOST = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104  # what listens everywhere is reached on the loopback


def reachable(address: Address) -> Address:
    """The address that a client on this machine connects to."""
    return Address(host=ANY_HOST.get(address.host, address.host), port=address.port)


def command_line() -> str:
    """How this program is called from the present folder."""
    called = Path(sys.argv[0])
    if called.suffix == ".py":
        return "artstore-grpc"
    if shutil.which(called.name) and Path(str(shutil.which(called.name))).resolve() == called.resolve():
        return called.name
    with contextlib.suppress(ValueError):
        called = called.absolute().relative_to(Path.cwd())
    return shlex.quote(str(called) if "/" in str(called) else f"./{called}")


def variables(administrator: Administrator, grpc_address: Address) -> dict[str, str]:
    """What a client of this service has in its environment."""
    return {
        "ARTSTORE_TARGET": str(reachable(grpc_address)),
        "ARTSTORE_CLIENT_ID": administrator.client_id,
        "ARTSTORE_CLIENT_SECRET": administrator.client_secret,
    }


def assignments(values: dict[str, str]) -> list[str]:
    return [f"{name}={shlex.quote(value)}" for name, value in values.items()]


def shown_once(
    administrator: Administrator, grpc_address: Address, gateway_address: Address | None, *, tls: bool = False
) -> str:
    """What a terminal shows on the very first start; the secret is in it. With TLS the lines name `ca.pem`, for the
    reader to put the CA of the service's certificate in its place."""
    lines = [
        "",
        "The first administrator; the secret is shown this once:",
        f"  client_id:     {administrator.client_id}",
        f"  client_secret: {administrator.client_secret}",
        "",
        "Get a token in another terminal:",
    ]
    if gateway_address is not None:
        user = shlex.quote(f"{administrator.client_id}:{administrator.client_secret}")
        url = f"{'--cacert ca.pem https' if tls else 'http'}://{reachable(gateway_address)}/oauth2/token"
        lines.append(f"  curl -d grant_type=client_credentials -u {user} {url}")
    ca = "ARTSTORE_CA_FILE=ca.pem " if tls else ""
    lines.append(f"  {ca}{' '.join(assignments(variables(administrator, grpc_address)))} {command_line()} token")
    return "\n".join([*lines, ""])


def write_file(folder: Path, administrator: Administrator, grpc_address: Address) -> Path:
    """Writes the credentials to a new file of mode 0600, whole or not at all, never over another. Raises OSError."""
    path = folder / f"{FILE_STEM}.env"
    if path.exists():  # of an earlier database; its secret may be the only copy
        path = folder / f"{FILE_STEM}-{administrator.client_id}.env"
    descriptor, temporary = tempfile.mkstemp(dir=folder, prefix=f".{FILE_STEM}-")  # O_EXCL and 0600
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write("".join(f"{line}\n" for line in assignments(variables(administrator, grpc_address))))
            file.flush()
            os.fsync(file.fileno())
        os.link(temporary, path)  # unlike a rename it refuses to replace a file
    finally:
        Path(temporary).unlink()
    return path


def latest_file(folder: Path) -> Path | None:
    """The newest file of credentials in the folder, if there is one."""
    found = sorted(folder.glob(f"{FILE_STEM}*.env"), key=lambda path: path.stat().st_mtime)
    return found[-1] if found else None


def paste_line(path: Path, grpc_address: Address) -> str:
    """A line that prints a token when pasted, without the secret in it."""
    target = str(reachable(grpc_address))
    moved = "" if f"ARTSTORE_TARGET={shlex.quote(target)}\n" in path.read_text() else f" --target {shlex.quote(target)}"
    named = str(path) if "/" in str(path) else f"./{path}"  # `.` searches PATH for a name without a slash
    return f"set -a; . {shlex.quote(named)}; set +a; {command_line()} token{moved}"
