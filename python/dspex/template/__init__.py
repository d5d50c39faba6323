"""Templates: prompts that you write yourself, in Jinja's syntax, compiled in Rust and bounded."""

from dspex.template.template import Template

__all__ = ["Template"]
