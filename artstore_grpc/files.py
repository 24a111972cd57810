"""What makes a file's name last: a new name is on disk only when its folder is (fsync(2))."""

from __future__ import annotations

import os
from pathlib import Path


def settle(folder: Path) -> None:
    """Has the names in a folder on disk. Raises OSError."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
