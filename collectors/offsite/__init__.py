"""Off-site: folders copied to a remote of rclone that nothing is ever overwritten on, checked, and fetched from there.

On the remote a copy has two folders. ``files/`` holds the files; ``index/`` has one list for each run that brought
something, ``20261127T010512.123456Z.json.gz``: every file the source then had, its object below ``files/``, size and
SHA-256. An object is never written twice. Where files of the source are written again (``versions``), each content has
an object of its own: ``2026-11/trades.csv.gz`` becomes ``2026-11/trades.5f2c0a9e41b7d863.csv.gz``, with the first
digits of its SHA-256; the object of the older content stays, and the older lists with it. Elsewhere objects are named
as the files are, and a file that was written again is an error.
"""

from collectors.offsite.errors import OffsiteError

__all__ = ["OffsiteError"]
