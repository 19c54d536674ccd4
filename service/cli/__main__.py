"""`python -m ridgeline.service.cli`, the same as the command `ridgeline`."""

from ridgeline.service.cli import main

main()
