"""Files that are whole whatever happens while they are written."""

import os
from pathlib import Path


def write_atomically(path: Path, content: bytes) -> None:
    """The file is the old one or the new one, whole, whatever happens: temporary name beside it, fsync, rename."""
    temporary = path.with_name(f'.{path.name}.{os.getpid()}.tmp')
    try:
        with temporary.open('wb') as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
