"""`python -m xsmmconv`."""

import sys

from xsmmconv.cli import main

sys.exit(main())
