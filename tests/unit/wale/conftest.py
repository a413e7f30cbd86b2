"""The sidecar's package is shipped in its image, not installed here: found where it lies."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "roles" / "wale" / "files" / "image"))
