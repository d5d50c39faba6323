"""A module that nobody imports: only a text names it."""


class Thing:
    """A type that a text names."""
