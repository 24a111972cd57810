"""An authority for the tests of services that use ArtStore's: in the test's own process, on a real socket, with real
signatures, and with no server, no database and no bcrypt.

It passes the contract tests of the real service, which are run against both. Where it knowingly differs:

* methods: ImportServiceAccounts, PlanRotations, RunRotations, KeyService and AuditService are UNIMPLEMENTED.
* administrator: there is no first one that can't be deleted; a test makes its own.
* failures: wrong credentials are refused however often they come, without a back-off.
* streams: an account may have any number of trust feeds.
* health: there is no `grpc.health.v1`, and no reflection.
* client certificates: a `certificate_subject` is kept as it was sent, and no certificate authenticates anybody.
* weak keys: an Ed25519 key that anybody can sign for is taken as a public key.

Nor is what no caller can see the same: secrets are kept in clear, nothing outlives the process, a new signing key signs
at once, an old one stays published until it is revoked, and rotation policies do nothing.
"""

from artstore.identity.testing.authority import FakeAccount, FakeAuthority
from artstore.identity.testing.clock import Clock

__all__ = ["Clock", "FakeAccount", "FakeAuthority"]
