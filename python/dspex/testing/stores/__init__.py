"""What a store of runs and of sessions has to do, as tests for any of them; pytest runs them.

::

    from dspex.testing.stores import RunStoreSuite, SessionStoreSuite


    class TestMyStore(RunStoreSuite, SessionStoreSuite):
        def make(self, place, clock=None, max_bytes=None):
            return MyStore(place / "file", clock=clock or time.time, max_bytes=max_bytes or 1_000_000)

They need pytest and nothing of its plugins. `dspex` itself does not: it is imported by this package alone.
"""

from dspex.errors import ConfigError

try:
    import pytest
except ModuleNotFoundError as err:
    raise ConfigError(
        "the tests of stores are run by pytest, which is not here",
        code="pytest-missing",
        hint="`pip install pytest`",
    ) from err

# Before they are imported: a failed `assert` of theirs then shows both sides, as one of a user's tests does.
pytest.register_assert_rewrite(f"{__name__}._runs", f"{__name__}._sessions")

from dspex.testing.stores._runs import RunStoreSuite  # noqa: E402 - see above
from dspex.testing.stores._sessions import SessionStoreSuite  # noqa: E402
from dspex.testing.stores._suite import StoreSuite  # noqa: E402

__all__ = ["RunStoreSuite", "SessionStoreSuite", "StoreSuite"]
