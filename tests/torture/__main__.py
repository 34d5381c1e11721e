"""`python -m tests.torture`: random programs in simulated and real lives, until the time is over.

Each kind of history (`--only`) has worker processes of its own kind; the main process hands out seeds, counts, and
shrinks what fails. The exit code is 1 if any history breaks a promise.
"""

from __future__ import annotations

import sys

from tests.torture.campaign import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
