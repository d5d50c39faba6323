"""How workers come into being: forked, spawned, or started elsewhere and connecting back. Not for users."""
