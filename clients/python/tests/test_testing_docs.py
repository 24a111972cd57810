"""README.md's section on testing runs as it stands there."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

README = Path(__file__).parents[1] / "README.md"


def test_the_example_passes(tmp_path: Path) -> None:
    """Each block is the file that its first line names; the tests in them pass, with every warning an error."""
    section = re.search(r"^## Testing your service\n(.*?)(?=^## |\Z)", README.read_text(), re.MULTILINE | re.DOTALL)
    assert section
    files = dict(re.findall(r"^```python\n# (\S+\.py)\n(.*?)^```$", section[1], re.MULTILINE | re.DOTALL))
    assert set(files) == {"orders.py", "test_orders.py"}
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-W",
        "error",
        "-p",
        "no:cacheprovider",
        "-p",
        "no:asyncio",
        "--rootdir",
        tmp_path,
    ]
    environment = {name: value for name, value in os.environ.items() if name != "PYTEST_ADDOPTS"}
    ran = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert re.search(r"^3 passed", ran.stdout, re.MULTILINE), ran.stdout + ran.stderr


def test_everything_in_the_table_exists() -> None:
    """Each name that the section's table calls is one of FakeAuthority's."""
    from artstore.identity.testing import FakeAuthority

    table = re.search(
        r"^\| to test \| use \|.*?\n\n?\Z|^\| to test \| use \|.*?(?=\n\n)", README.read_text(), re.M | re.S
    )
    assert table
    named = {name for row in table[0].splitlines()[2:] for name in re.findall(r"`([a-z_]+)", row.split("|")[2])}
    assert len(named) > 12
    assert not {name for name in named if not hasattr(FakeAuthority, name)}
