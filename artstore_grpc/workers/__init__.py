"""Several processes of one service at the same addresses: a supervisor that starts them, and what each does for it."""
