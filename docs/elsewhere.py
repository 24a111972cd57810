"""Documents that lie outside docs/, by their paths in the repository, and the pages that the site makes of them."""

ELSEWHERE = {
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security-policy.md",
    "clients/README.md": "clients.md",
    "clients/python/README.md": "python-client.md",
}
