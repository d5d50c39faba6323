"""What the core calls by name, and what adapters and workers share of it: values, replies, types. Not for users."""
