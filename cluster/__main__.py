"""`python -m cluster` is `brc`."""

import sys

from cluster.cli import main

sys.exit(main())
