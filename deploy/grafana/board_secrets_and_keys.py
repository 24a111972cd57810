"""The dashboard *secrets and keys*: what expires, what rotates, which key signs, whether the ledger holds."""

from __future__ import annotations

from panels import GREEN, OURS, RED, YELLOW, Board, Panel, Row, Series
from queries import SECONDS, known
from shared_panels import denials


def now(
    title: str,
    text: str,
    query: str,
    runbook: str,
    *thresholds: tuple[float, str],
    unit: str = "short",
    mappings: tuple[tuple[str, str, str], ...] = (),
) -> Panel:
    """A number of the first row."""
    return Panel(
        title,
        text,
        (Series(query, ""),),
        unit=unit,
        width=4,
        height=5,
        kind="stat",
        thresholds=thresholds,
        mappings=mappings,
        runbook=runbook,
    )


SECRETS_AND_KEYS = Board(
    "secrets_and_keys",
    "secrets and keys",
    "What expires, what rotates by itself, which key signs, and whether the ledger holds.",
    (
        Row(
            "Now",
            (
                now(
                    "Last secrets that expire within 7 days",
                    "Accounts that will have nothing to prove themselves by.",
                    known("artstore_secrets_expiring_7_days"),
                    "ArtstoreSecretsExpiring",
                    (1, YELLOW),
                ),
                now(
                    "Last secrets that have expired",
                    "Accounts, neither suspended nor deleted, that nobody can use any more.",
                    known("artstore_secrets_expired"),
                    "ArtstoreSecretsExpired",
                    (1, RED),
                ),
                now(
                    "Deliveries that wait",
                    "New secrets that their sink has not taken yet.",
                    known("artstore_secret_deliveries_pending"),
                    "ArtstoreDeliveriesPending",
                    (1, YELLOW),
                ),
                now(
                    "Age of the signing key",
                    "How long the key that signs has done so.",
                    f"time() - {known('artstore_signing_key_activate_timestamp_seconds')}",
                    "ArtstoreSigningKeyOld",
                    (90 * 86400, YELLOW),
                    unit=SECONDS,
                ),
                now(
                    "Next key in",
                    "Until another key is to sign. Nothing: none is planned. Below zero it is overdue.",
                    f"({known('artstore_signing_key_next_rotation_timestamp_seconds')} > 0) - time()",
                    "ArtstoreSigningKeyRotationOverdue",
                    (-1e9, RED),
                    (0, GREEN),
                    unit=SECONDS,
                ),
                now(
                    "The ledger",
                    "Whether it held when it was last to be signed.",
                    known("artstore_ledger_broken"),
                    "ArtstoreLedgerBroken",
                    (1, RED),
                    mappings=(("0", "holds", GREEN), ("1", "broken", RED)),
                ),
            ),
        ),
        Row(
            "Secrets",
            (
                Panel(
                    "Secrets about to expire, and expired",
                    "Counted every half a minute.",
                    (
                        Series(known("artstore_secrets_expiring_7_days"), "within 7 days"),
                        Series(known("artstore_secrets_expired"), "expired"),
                    ),
                    runbook="ArtstoreSecretsExpiring",
                    named_colours=(("within 7 days", YELLOW), ("expired", RED)),
                ),
                Panel(
                    "Steps of rotation",
                    "Done within five minutes, by action.",
                    (
                        Series(
                            "sum by (action) (increase(artstore_rotation_steps_total"
                            f'{{outcome="done", {OURS}}}[5m])) > 0',
                            "{{action}}",
                        ),
                    ),
                    stacked=True,
                ),
                Panel(
                    "Steps that failed",
                    "Within five minutes, by action and reason.",
                    (
                        Series(
                            "sum by (action, outcome) (increase(artstore_rotation_steps_total"
                            f'{{outcome!="done", {OURS}}}[5m])) > 0',
                            "{{action}}: {{outcome}}",
                        ),
                    ),
                    runbook="ArtstoreRotationFailing",
                ),
                Panel(
                    "Deliveries that wait, over time",
                    "It should return to 0 within minutes.",
                    (Series(known("artstore_secret_deliveries_pending"), "waiting"),),
                    runbook="ArtstoreDeliveriesPending",
                ),
                Panel(
                    "Imported accounts",
                    "Within five minutes, by outcome.",
                    (
                        Series(
                            f"sum by (outcome) (increase(artstore_accounts_imported_total{{{OURS}}}[5m])) > 0",
                            "{{outcome}}",
                        ),
                    ),
                    stacked=True,
                ),
                denials(
                    "Authentications refused",
                    "After a rotation: clients that still have the old secret, or a token of a key that is gone.",
                ),
            ),
        ),
        Row(
            "Keys and the ledger",
            (
                Panel(
                    "Age of the signing key, by instance",
                    "All instances sign by one key, but for the second in which it changes.",
                    (
                        Series(
                            f"time() - max by (instance) (artstore_signing_key_activate_timestamp_seconds{{{OURS}}})",
                            "{{instance}}",
                        ),
                    ),
                    unit=SECONDS,
                    runbook="ArtstoreSigningKeysDiffer",
                ),
                Panel(
                    "Rows of the ledger",
                    "Applied, a second, by instance.",
                    (
                        Series(
                            f"clamp_min(max by (instance) (deriv(artstore_ledger_sequence{{{OURS}}}[1m])), 0)",
                            "{{instance}}",
                        ),
                    ),
                    unit="wps",
                ),
                Panel(
                    "How many rows an instance is behind",
                    "Behind the one that is furthest.",
                    (
                        Series(
                            f"scalar(max(artstore_ledger_sequence{{{OURS}}})) "
                            f"- max by (instance) (artstore_ledger_sequence{{{OURS}}})",
                            "{{instance}}",
                        ),
                    ),
                    runbook="ArtstoreLedgerLag",
                ),
            ),
        ),
    ),
)
