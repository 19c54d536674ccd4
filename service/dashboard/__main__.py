"""`python -m ridgeline.service.dashboard`."""

from __future__ import annotations

import sys

from ridgeline.service.interrupts import INTERRUPTED, interruptible

with interruptible():
    from ridgeline.service.dashboard.server import main

try:
    sys.exit(main())
except KeyboardInterrupt:
    sys.exit(INTERRUPTED)
