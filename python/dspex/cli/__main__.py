"""`python -m dspex.cli`: the command `dspex`, where its script is not on the path."""

import sys

from dspex.cli import main

sys.exit(main())
