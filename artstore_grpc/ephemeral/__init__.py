"""What may be lost: request counts. Protocols with a memory and a Redis implementation."""
