"""How the service is seen: logs and metrics."""
