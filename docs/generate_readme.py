"""The table of settings in README.md: those that nearly every deployment decides, from settings.py."""

from __future__ import annotations

import re
from pathlib import Path

from artstore_grpc.cli.reference import markdown, settings_table

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "README.md"
SHOWN = (
    "DATA_DIR",
    "DATABASE_URL",
    "REDIS_URL",
    "GRPC_ADDRESS",
    "GATEWAY_ADDRESS",
    "METRICS_ADDRESS",
    "TLS_CERTIFICATE_FILE",
    "TLS_KEY_FILE",
    "ISSUER",
    "ENVIRONMENT",
    "TRUSTED_PROXIES",
    "KEY_ENCRYPTION_KEY",
)
BEGIN = "<!-- settings: begin; made by `make docs` -->"
END = "<!-- settings: end -->"


def page() -> str:
    """README.md with its table written anew. Raises SystemExit where the marks around it are missing."""
    said, count = re.subn(f"{BEGIN}.*?{END}", lambda _: section(), PAGE.read_text(), flags=re.DOTALL)
    if count != 1:
        raise SystemExit(f"README.md must have {BEGIN} and {END}, once")
    return said


def section() -> str:
    count = len(settings_table())
    return f"{BEGIN}\n{markdown(SHOWN)}\n\nAll {count}: [docs/settings.md](docs/settings.md).\n{END}"
