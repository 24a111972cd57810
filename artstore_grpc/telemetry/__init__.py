"""How the service is seen: logs, metrics, traces."""
