"""`python -m granian_uring`: the same program as `granian-uring`."""

import sys

from granian_uring.cli import main

sys.exit(main())
