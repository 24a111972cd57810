"""Where the service delivers the secrets that it rotates by itself: a package of sinks, each a place of one kind."""
