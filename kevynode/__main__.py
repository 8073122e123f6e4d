"""``python -m kevynode`` is the same as the ``kevynode`` command."""

import sys

from kevynode.cli import main

if __name__ == "__main__":
    sys.exit(main())
