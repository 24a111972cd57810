"""Ids that begin with a dash, as base64url does once in 64, and are no option for that."""

from __future__ import annotations

import re

import click

DASHED = re.compile("-[A-Za-z0-9_-]{42,}")
"""No shorter than a thumbprint (RFC 7638); no option is as long."""


class IdCommand(click.Command):
    """A command whose argument is a key's or a denial's id."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """The arguments, the ids among them after a `--`; where one stands already they are left as they are."""
        ids = [] if "--" in args else [one for one in args if DASHED.fullmatch(one)]
        return super().parse_args(ctx, [one for one in args if one not in ids] + (["--", *ids] if ids else []))
