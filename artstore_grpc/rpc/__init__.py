"""The gRPC door: protobuf ⇄ model, health, reflection, the server."""
