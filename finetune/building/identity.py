"""Whether the pictures of a build are those of another, by what a directory tells of its files: no picture is read."""

import hashlib
import os

from finetune.building.plan import SPLIT_VERSION, Plan


def of(planned: Plan) -> str:
    """Changes when a file, or anything that the records depend on, does."""
    digest = hashlib.sha256()
    settings = (SPLIT_VERSION, planned.labels, planned.shards, planned.percents, planned.seed, planned.stored_by)
    digest.update(repr(settings).encode())
    for part in planned.parts:
        digest.update(repr(part.near and part.near.pairs).encode())
        for image in part.source.images(planned.seed):
            path = part.source.path(image)
            digest.update(b'%a %d %a\n' % (part.splits, image.label, path))
            digest.update(_state(path))
    return digest.hexdigest()


def _state(path: bytes) -> bytes:
    try:
        found = os.stat(path)  # noqa: PTH116 - a Path cannot hold bytes.
    except OSError as error:
        return b'%d\n' % (error.errno or 0)
    return b'%d %d %d\n' % (found.st_size, found.st_mtime_ns, found.st_ctime_ns)
