"""Let ``python -m nebula_utils`` do what ``nebula`` does."""

import sys

from nebula_utils.workflow.cli import main

if __name__ == "__main__":
    sys.exit(main())
