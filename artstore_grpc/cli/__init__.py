"""The commands of `artstore-grpc`: what operators type and scripts run."""
