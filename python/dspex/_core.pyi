"""The Rust core. Private: users meet the modules of `dspex` instead."""

__version__: str
_debug_build: bool
