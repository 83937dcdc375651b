"""`python -m bayesgmm`: the same as the command `bayesgmm`."""

import sys

from bayesgmm.cli import main

sys.exit(main())
