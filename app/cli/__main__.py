"""`python -m app.cli`: run the command `patients-api` even if it is not on the PATH."""

import sys

from app.cli import main

sys.exit(main())
