"""`python -m cluster` is `brc`."""

import sys

from brc_at_scale import main

sys.exit(main())
