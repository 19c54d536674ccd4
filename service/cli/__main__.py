"""`python -m service.cli`, the same as the command `ridgeline`."""

from service.cli import main

main()
