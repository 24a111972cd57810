"""Measures the service against the floor: `make bench`. How to read the figures: docs/performance.md."""
