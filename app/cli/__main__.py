"""`python -m app.cli`: the command `patients-api`, for when it is not on the PATH."""

import sys

from app.cli import main

sys.exit(main())
