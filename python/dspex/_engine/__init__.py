"""What the core calls by name, and what adapters and workers share of it. Not for users."""
