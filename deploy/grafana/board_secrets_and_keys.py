"""The dashboard *secrets and keys*: what expires, what rotates, which key signs, whether the ledger holds."""

from __future__ import annotations

from panels import GREEN, OURS, RED, YELLOW, Board, Panel, Row, Series
from queries import RATE, SECONDS, rate

SECRETS_AND_KEYS = Board(
    "secrets_and_keys",
    "secrets and keys",
    "What expires, what rotates by itself, which key signs, and whether the ledger holds.",
    (
        Row(
            "Now",
            (
                Panel(
                    "Last secrets that expire within 7 days",
                    "Accounts that will have nothing to prove themselves by.",
                    (Series(f"max(artstore_secrets_expiring_7_days{{{OURS}}})", ""),),
                    width=4,
                    height=5,
                    kind="stat",
                    thresholds=((1, YELLOW),),
                    runbook="ArtstoreSecretsExpiring",
                ),
                Panel(
                    "Last secrets that have expired",
                    "Accounts, neither suspended nor deleted, that nobody can use any more.",
                    (Series(f"max(artstore_secrets_expired{{{OURS}}})", ""),),
                    width=4,
                    height=5,
                    kind="stat",
                    thresholds=((1, RED),),
                    runbook="ArtstoreSecretsExpired",
                ),
                Panel(
                    "Deliveries that wait",
                    "New secrets that their sink has not taken yet.",
                    (Series(f"max(artstore_secret_deliveries_pending{{{OURS}}})", ""),),
                    width=4,
                    height=5,
                    kind="stat",
                    thresholds=((1, YELLOW),),
                    runbook="ArtstoreDeliveriesPending",
                ),
                Panel(
                    "Age of the signing key",
                    "How long the key that signs has done so.",
                    (Series(f"time() - max(artstore_signing_key_activate_timestamp_seconds{{{OURS}}})", ""),),
                    unit=SECONDS,
                    width=4,
                    height=5,
                    kind="stat",
                    thresholds=((90 * 86400, YELLOW),),
                    runbook="ArtstoreSigningKeyOld",
                ),
                Panel(
                    "Next key in",
                    "Until another key is to sign. Nothing: none is planned. Below zero it is overdue.",
                    (
                        Series(
                            f"(max(artstore_signing_key_next_rotation_timestamp_seconds{{{OURS}}}) > 0) - time()", ""
                        ),
                    ),
                    unit=SECONDS,
                    width=4,
                    height=5,
                    kind="stat",
                    thresholds=((-1e9, RED), (0, GREEN)),
                    runbook="ArtstoreSigningKeyRotationOverdue",
                ),
                Panel(
                    "The ledger",
                    "Whether it held when it was last to be signed.",
                    (Series(f"max(artstore_ledger_broken{{{OURS}}})", ""),),
                    width=4,
                    height=5,
                    kind="stat",
                    thresholds=((1, RED),),
                    mappings=(("0", "holds", GREEN), ("1", "broken", RED)),
                    runbook="ArtstoreLedgerBroken",
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
                        Series(f"max(artstore_secrets_expiring_7_days{{{OURS}}})", "within 7 days"),
                        Series(f"max(artstore_secrets_expired{{{OURS}}})", "expired"),
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
                    (Series(f"max(artstore_secret_deliveries_pending{{{OURS}}})", "waiting"),),
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
                Panel(
                    "Authentications refused",
                    "After a rotation: clients that still have the old secret, or a token of a key that is gone.",
                    (Series(rate("artstore_denials_total", "kind") + " > 0", "{{kind}}"),),
                    unit=RATE,
                    runbook="ArtstoreDenialsSurge",
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
