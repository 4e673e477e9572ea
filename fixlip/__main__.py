"""The command as ``python -m fixlip``."""

import sys

from fixlip.cli import main

if __name__ == "__main__":
    sys.exit(main())
