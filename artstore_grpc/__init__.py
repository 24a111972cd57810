"""The ArtStore identity service."""
