"""Makes the random secrets that docker-compose.yml reads, in ./secrets (`make secrets`). Needs only Python.

The folder is 0700, the files in it are readable to all: Compose mounts them as they are, and each container reads
them as a user of its own.
"""

from __future__ import annotations

import base64
import secrets
import sys
from pathlib import Path


def contents() -> dict[str, str]:
    """Each file's name and what it says; the passwords are URL-safe, since two of the files are URLs."""
    postgres, run, redis = secrets.token_urlsafe(32), secrets.token_urlsafe(32), secrets.token_urlsafe(32)
    return {
        "postgres_password": postgres,
        "postgres_run_password": run,
        "migrate_database_url": f"postgresql://artstore:{postgres}@postgres:5432/artstore",
        "database_url": f"postgresql://artstore_run:{run}@postgres:5432/artstore",
        "redis_conf": f'requirepass {redis}\nsave ""\nmaxmemory-policy noeviction',
        "redis_url": f"redis://:{redis}@redis:6379/0",
        "grafana_password": secrets.token_urlsafe(32),
        "key_encryption_key": base64.b64encode(secrets.token_bytes(32)).decode(),
    }


def main() -> None:
    folder = Path("secrets")
    try:
        folder.mkdir(mode=0o700)
    except FileExistsError:
        sys.exit("secrets/ is there already; nothing was changed.")
    for name, text in contents().items():
        path = folder / name
        path.write_text(text + "\n")
        path.chmod(0o444)
    sys.stdout.write(
        "Made ./secrets. Keep a copy of secrets/key_encryption_key: without it the database is of no use.\n"
    )


if __name__ == "__main__":
    main()
