"""`python -m dspex`: the command `dspex`."""

from __future__ import annotations

import sys

from dspex.cli import main

sys.exit(main())
