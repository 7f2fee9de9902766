"""`python -m virtex` is the command `virtex`."""

from virtex.cli import main

raise SystemExit(main())
