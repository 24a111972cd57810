"""The dashboard *tokens*: what is asked for and issued, who is refused, and what it costs."""

from __future__ import annotations

from panels import BLUE, GREEN, OURS, RED, YELLOW, Board, Panel, Row, Series
from queries import RATE, SECONDS, SHARE, by_instance, quantiles, rate

TOKENS = Board(
    "tokens",
    "tokens",
    "What is asked for and issued, who is refused, and what it costs.",
    (
        Row(
            "Tokens",
            (
                Panel(
                    "Tokens issued",
                    "A second, by mode. `outage`: from memory while the database was down.",
                    (Series(rate("artstore_tokens_issued_total", "mode"), "{{mode}}"),),
                    unit=RATE,
                    stacked=True,
                    runbook="ArtstoreDegraded",
                    named_colours=(("normal", GREEN), ("outage", RED)),
                ),
                Panel(
                    "Requests that got none",
                    "By RFC 6749's code.",
                    (
                        Series(
                            rate("artstore_token_requests_total", "outcome", f'outcome!="issued", {OURS}') + " > 0",
                            "{{outcome}}",
                        ),
                    ),
                    unit=RATE,
                ),
                Panel(
                    "How clients prove themselves",
                    "Requests a second by client authentication, in RFC 8414's names.",
                    (
                        Series(
                            rate("artstore_token_requests_total", "client_authentication") + " > 0",
                            "{{client_authentication}}",
                        ),
                    ),
                    unit=RATE,
                    stacked=True,
                ),
            ),
        ),
        Row(
            "Denials and limits",
            (
                Panel(
                    "Denials by reason",
                    "Refused authentications of every method.",
                    (Series(rate("artstore_denials_total", "kind") + " > 0", "{{kind}}"),),
                    unit=RATE,
                    runbook="ArtstoreDenialsSurge",
                ),
                Panel(
                    "Refused by a limiter",
                    "`account`: over its rate limit. `back_off`: too many failed authentications before.",
                    (
                        Series(
                            rate("artstore_limiter_decisions_total", "limiter", f'decision="refused", {OURS}'),
                            "{{limiter}}",
                        ),
                    ),
                    unit=RATE,
                ),
                Panel(
                    "Admitted without Redis",
                    "By a process's own count, since Redis did not answer.",
                    (
                        Series(
                            rate("artstore_limiter_decisions_total", "limiter", f'decision="degraded", {OURS}'),
                            "{{limiter}}",
                        ),
                    ),
                    unit=RATE,
                    runbook="ArtstoreRedisDown",
                ),
            ),
        ),
        Row(
            "bcrypt",
            (
                Panel(
                    "Hashes that wait or are under way",
                    "Refused past ARTSTORE_BCRYPT_THREADS + ARTSTORE_BCRYPT_QUEUE, 33 by default.",
                    (by_instance("artstore_bcrypt_queue_depth"),),
                    thresholds=((16, YELLOW), (33, RED)),
                    runbook="ArtstoreBcryptQueue",
                ),
                Panel(
                    "How long one takes",
                    "In its thread, without its wait.",
                    quantiles("artstore_bcrypt_duration_seconds", OURS, 0.5, 0.99),
                    unit=SECONDS,
                    runbook="ArtstoreBcryptQueue",
                ),
                Panel(
                    "Hashes",
                    "Computed and refused, a second. Refused are those for which the queue was full.",
                    (
                        Series(
                            f"sum(rate(artstore_bcrypt_duration_seconds_count{{{OURS}}}[$__rate_interval]))", "computed"
                        ),
                        Series(f"sum(rate(artstore_bcrypt_rejections_total{{{OURS}}}[$__rate_interval]))", "refused"),
                    ),
                    unit="ops",
                    runbook="ArtstoreBcryptRejections",
                    named_colours=(("computed", BLUE), ("refused", RED)),
                ),
            ),
        ),
        Row(
            "What is remembered",
            (
                Panel(
                    "Found in memory",
                    "What isn't in memory costs: a statement in `accounts`, a bcrypt in `secret_tags`.",
                    (
                        Series(
                            rate("artstore_cache_lookups_total", "cache", f'outcome="hit", {OURS}')
                            + " / "
                            + rate("artstore_cache_lookups_total", "cache"),
                            "{{cache}}",
                        ),
                    ),
                    unit=SHARE,
                    width=12,
                    most=1,
                ),
                Panel(
                    "Look-ups",
                    "A second, by cache.",
                    (Series(rate("artstore_cache_lookups_total", "cache"), "{{cache}}"),),
                    unit=RATE,
                    width=12,
                ),
            ),
        ),
    ),
)
