"""The published entry point: the same flags as `virtex pretrain`, which does the work."""

import sys

from virtex.cli import main

if __name__ == "__main__":
    raise SystemExit(main(["pretrain", *sys.argv[1:]]))
