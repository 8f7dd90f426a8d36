"""`python sandbox …`: what `sandbox/cloud` runs."""

import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parent.parent)

from sandbox.front_door import main  # noqa: E402  (the path above is what makes it importable)

main()
