"""What may be lost: request counts, used assertions. Protocols with a memory and a Redis implementation."""
