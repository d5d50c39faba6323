"""A module that cannot be imported while a file is there, for workers that preload it."""

import os

if os.path.exists(os.environ["DSPEX_TEST_BROKEN"]):
    raise RuntimeError("the model file is gone")
