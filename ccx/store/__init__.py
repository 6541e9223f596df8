"""Files that survive a kill or a full disk: atomic writes, array files, run folders, content hashes.

Nothing here reads or writes pickles. Every failure of the file system, and every file that is
damaged or not ours, is a `StoreError` that names the path, the reason and what to do.
"""

from ccx.store.arrays import content_hash, load_arrays, save_arrays
from ccx.store.files import PathLike, json_text, read_json, write_atomic, write_bytes, write_text
from ccx.store.folders import locked_folder, make_folder, new_folder
from ccx.store.runs import RowLog, read_run

__all__ = [
    "PathLike",
    "RowLog",
    "content_hash",
    "json_text",
    "load_arrays",
    "locked_folder",
    "make_folder",
    "new_folder",
    "read_json",
    "read_run",
    "save_arrays",
    "write_atomic",
    "write_bytes",
    "write_text",
]
