"""Client assertions: a JWT that an account signs with a key of its own, in place of a secret (RFC 7523 §2.2 and §3).

What is wrong with one is one answer, after the same work whoever is claimed to have signed it: as many signatures are
checked, against decoys where there is no key. Signatures and claims are joserfc's work. Last of all an assertion is
noted as used, so that nobody but its signer can use one up; a second use is refused for as long as it could be valid,
and where that can't be found out, so is the first.
"""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicNumbers
from joserfc import jwk, jws, jwt
from joserfc.errors import InvalidClaimError, JoseError, UnsupportedAlgorithmError
from joserfc.jwk import ECKey, Key, OKPKey, RSAKey
from joserfc.jws import JWSRegistry

from artstore_grpc.counters import Lookups
from artstore_grpc.credentials import CLIENT_ID, Credentials
from artstore_grpc.ephemeral.protocol import Limiter, UsedAssertions
from artstore_grpc.errors import RateLimited, invalid
from artstore_grpc.model import Account, PublicKey, State
from artstore_grpc.public_keys import ALGORITHMS, EXPONENTS, MAX_PUBLIC_KEYS, RSA_BITS
from artstore_grpc.refusals import Refusals, about
from artstore_grpc.replica import Replica
from artstore_grpc.store.protocol import Store
from artstore_grpc.vault import framed

ASSERTION_TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
"""RFC 7523 §2.2."""
MAX_LENGTH = 8 * 1024
"""Characters; an honest one has under 1,500."""
MAX_LIFETIME = timedelta(minutes=10)
"""How far ahead `exp` may be: used assertions are remembered for so long."""
MAX_AGE = timedelta(hours=1)
"""How long ago `iat` may be."""
LEEWAY = timedelta(seconds=30)
"""What clocks may differ by; a used assertion is remembered for that much longer."""
MAX_JTI = 255
BEGUN = ("iat", "nbf")
TYPES = ("jwt", "client-authentication+jwt")
"""What `typ` may be, if there is one; no other kind of JWT passes for an assertion (RFC 8725 §3.11)."""
TAKEN = tuple(algorithm for algorithms in ALGORITHMS.values() for algorithm in algorithms)
MAX_PARSED = 10_000
"""Parsed keys that are remembered, about 2 KB each."""


class BadAssertion(Exception):
    """An assertion that proves nobody; the message is for the log and repeats nothing that was sent. `account` is the
    one that it names."""

    def __init__(self, cause: str, account: Account | None = None) -> None:
        self.account = account
        super().__init__(about(cause, account))


class Pinned(JWSRegistry):
    """One algorithm and no other. The library's own would also warn at each use of the name EdDSA (RFC 9864)."""

    def __init__(self, algorithm: str) -> None:
        super().__init__(algorithms=[algorithm])
        self._pinned = algorithm

    def get_alg(self, name: str) -> Any:
        if name != self._pinned:
            raise UnsupportedAlgorithmError(f"not {self._pinned}")
        return self.algorithms[name]


REGISTRIES = {algorithm: Pinned(algorithm) for algorithm in TAKEN}


@dataclass(frozen=True, slots=True)
class Assertion:
    """An assertion as read; nothing of it is verified."""

    signed: jws.CompactSignature
    header: dict[str, Any]
    client_id: str
    claims: dict[str, Any]

    @property
    def algorithm(self) -> str:
        return str(self.header["alg"])

    @property
    def kid(self) -> str:
        """Empty where the header has none."""
        return str(self.header.get("kid", ""))


class Begun(jwt.JWTClaimsRegistry):
    """Since when an assertion is valid: not yet to come, and not of long ago."""

    def validate_iat(self, value: Any) -> None:
        super().validate_iat(value)
        if value < self.now - MAX_AGE.total_seconds():
            raise InvalidClaimError("iat")


class Proof(jwt.JWTClaimsRegistry):
    """The other claims, where RFC 7523 §3 leaves the bounds to us."""

    def validate_aud(self, value: Any) -> None:
        """One audience, alone: an assertion for others too is one that they could use here (RFC 7523 §3, 3)."""
        audience = value[0] if isinstance(value, list) and len(value) == 1 else value
        if not isinstance(audience, str):
            raise InvalidClaimError("aud")
        self.check_value("aud", audience)

    def validate_exp(self, value: Any) -> None:
        super().validate_exp(value)
        if value > self.now + (MAX_LIFETIME + LEEWAY).total_seconds():
            raise InvalidClaimError("exp")

    def validate_jti(self, value: Any) -> None:
        super().validate_jti(value)
        if len(value) > MAX_JTI:
            raise InvalidClaimError("jti")


class StoredUsedAssertions:
    """Used assertions in the store, where there is no Redis. Fails closed."""

    def __init__(self, store: Store, replica: Replica) -> None:
        self._store = store
        self._replica = replica

    async def use(self, key: bytes, expire_time: datetime, now: datetime) -> bool:
        """As `UsedAssertions.use`. Raises StoreUnavailable, at once where the database is known to be down."""
        self._replica.require_database()
        return await self._store.use_assertion(key, expire_time)

    async def close(self) -> None:
        """Nothing: the store is its maker's."""


class Assertions:
    """Verifies assertions for this issuer."""

    def __init__(
        self,
        *,
        replica: Replica,
        used: UsedAssertions,
        limiter: Limiter,
        refusals: Refusals,
        issuer: str,
        now: Callable[[], datetime],
    ) -> None:
        self._replica = replica
        self._limiter = limiter
        self._used = used
        self._refusals = refusals
        self._audiences = [issuer, f"{issuer}/oauth2/token"]
        self._now = now
        self.lookups = Lookups()
        """Of public keys that were parsed before."""
        self._parsed: dict[str, Key] = {}
        self._decoys = decoys()
        self._begun = Begun(now=self._seconds, leeway=int(LEEWAY.total_seconds()))

    async def prove(self, credentials: Credentials, source: str) -> tuple[Account, PublicKey]:
        """The live account that signed, and its key that did. Raises InvalidRequest for another assertion type,
        InvalidClient with the cause for the log, RateLimited after too many failures from one source, Unavailable and
        StoreUnavailable where it can't be told whether the assertion was used before."""
        if credentials.client_assertion_type != ASSERTION_TYPE:
            raise invalid("client_assertion_type", f"must be {ASSERTION_TYPE}")
        claimed, known = credentials.client_id, False
        try:
            assertion = read(credentials.client_assertion)
            claimed = assertion.client_id
            remembered = self._replica.remembered(claimed)
            known = remembered is not None
            check_header(assertion.header)
            return await self._proved(assertion, credentials.client_id, remembered)
        except BadAssertion as bad:
            raise await self._refusals.of(
                str(bad), bad.account, claimed=claimed, what="assertion", source=source, known=known
            ) from None

    async def _proved(
        self, assertion: Assertion, client_id: str, remembered: Account | None
    ) -> tuple[Account, PublicKey]:
        account = remembered or await self._replica.reread(assertion.client_id)
        key = self._signer(account, assertion)
        if account is None or key is None:
            raise BadAssertion("no registered key made this assertion", account)
        if client_id not in ("", assertion.client_id):
            raise BadAssertion("client_id is not the assertion's", account)  # RFC 7521 §4.2
        self._check_claims(assertion, account)
        now = self._now()
        state = account.state(now)
        if state is not State.ACTIVE:
            raise BadAssertion(f"account is {state.value}", account)
        wait = await self._limiter.peek(account.id, account.rate_limit)
        if wait is not None:  # before it is used up, which costs a write
            raise RateLimited("The account is over its rate limit.", retry_after=wait)
        expire_time = datetime.fromtimestamp(assertion.claims["exp"], UTC) + LEEWAY
        if not await self._used.use(use_key(account, assertion.claims["jti"]), expire_time, now):
            raise BadAssertion("assertion was used before", account)
        return account, key

    def _signer(self, account: Account | None, assertion: Assertion) -> PublicKey | None:
        """The account's key that signed, if one did. A failure costs one check where `kid` names a key, else as many as
        an account may have keys: what it costs must not tell how many there are."""
        fitting = [key for key in (account.public_keys if account else ()) if fits(key, assertion)]
        for key in fitting:
            if verifies(assertion, self._key(key)):
                return key
        for _ in range((1 if assertion.kid else MAX_PUBLIC_KEYS) - len(fitting)):
            verifies(assertion, self._decoys[assertion.algorithm])
        return None

    def _check_claims(self, assertion: Assertion, account: Account) -> None:
        claims = assertion.claims
        own: jwt.ClaimsOption = {"essential": True, "value": account.client_id}
        ours: jwt.ClaimsOption = {"essential": True, "values": self._audiences}
        needed: jwt.ClaimsOption = {"essential": True}
        proof = Proof(now=self._seconds, iss=own, sub=own, aud=ours, exp=needed, jti=needed)
        try:
            self._begun.validate({name: claims[name] for name in BEGUN if name in claims})
            proof.validate({name: value for name, value in claims.items() if name not in BEGUN})
        except JoseError as error:
            claim = str(getattr(error, "claim", "")) or "claims"
            raise BadAssertion(f"{claim}: {type(error).__name__}", account) from None

    def _key(self, key: PublicKey) -> Key:
        """A key parsed, which costs as much as a check with it."""
        parsed = self._parsed.get(key.thumbprint)
        if parsed is not None:
            self.lookups.hits += 1
        else:
            self.lookups.misses += 1
            parsed = self._parsed[key.thumbprint] = jwk.import_key({**key.jwk})
            if len(self._parsed) > MAX_PARSED:
                del self._parsed[next(iter(self._parsed))]
        return parsed

    def _seconds(self) -> int:
        return int(self._now().timestamp())


def read(text: str) -> Assertion:
    """An assertion's parts. Raises BadAssertion for anything but a JWS of claims about somebody."""
    if len(text) > MAX_LENGTH:
        raise BadAssertion(f"longer than {MAX_LENGTH} characters")
    try:
        signed = jws.extract_compact(text.encode())
        header, claims = signed.headers(), json.loads(signed.payload or b"")
        client_id = claims["sub"]
    except (JoseError, ValueError, TypeError, KeyError, RecursionError):
        raise BadAssertion("not a compact JWS with claims") from None
    if not isinstance(header, dict):  # JSON, but no object: the library lets it pass
        raise BadAssertion("a header that is no object")
    if not isinstance(client_id, str) or not CLIENT_ID.fullmatch(client_id):
        raise BadAssertion("sub can't be a client_id")
    return Assertion(signed, header, client_id, claims)


def check_header(header: dict[str, Any]) -> None:
    """Raises BadAssertion for a header that no assertion of ours has; it names an algorithm that is known but not
    taken, such as none and HS256."""
    algorithm = header["alg"]
    if algorithm not in TAKEN:
        known = [name for name in JWSRegistry.algorithms if name == algorithm]
        raise BadAssertion(f"alg {known[0] if known else '(unknown)'} is not taken")
    if "crit" in header:
        raise BadAssertion("crit is present")
    if "kid" in header and not (isinstance(header["kid"], str) and header["kid"]):
        raise BadAssertion("kid is not text")
    if str(header.get("typ", TYPES[0])).lower().removeprefix("application/") not in TYPES:
        raise BadAssertion("typ is not an assertion's")
    try:
        REGISTRIES[algorithm].check_header(header)
    except JoseError as error:
        raise BadAssertion(f"header: {type(error).__name__}") from None


def fits(key: PublicKey, assertion: Assertion) -> bool:
    """Whether a key may have signed: by its algorithm, and by `kid` if there is one."""
    return key.algorithm == assertion.algorithm and assertion.kid in ("", key.thumbprint, key.kid)


def verifies(assertion: Assertion, key: Key) -> bool:
    try:
        return jws.validate_compact(assertion.signed, key, registry=REGISTRIES[assertion.algorithm])
    except (JoseError, ValueError, TypeError):
        return False


def use_key(account: Account, jti: str) -> bytes:
    """What a used assertion is remembered by. JSON may hold half a surrogate pair, which UTF-8 can't."""
    return hashlib.sha256(framed(account.id.encode(), jti.encode(errors="surrogatepass"))).digest()


def decoys() -> dict[str, Key]:
    """A key for each algorithm that nobody has the private key of. For RSA any odd number of the usual size will do: a
    check costs the same."""
    modulus = secrets.randbits(RSA_BITS[0]) | 1 << (RSA_BITS[0] - 1) | 1
    keys: dict[str, Key] = {
        "RSA": RSAKey.import_key(RSAPublicNumbers(EXPONENTS[0], modulus).public_key()),
        "EC": ECKey.generate_key("P-256", private=False),
        "OKP": OKPKey.generate_key("Ed25519", private=False),
    }
    return {algorithm: keys[kind] for kind, algorithms in ALGORITHMS.items() for algorithm in algorithms}
