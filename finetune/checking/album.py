"""One look at every stored picture: its hashes, what the eye sees first, and what is no content: size, coding."""

import hashlib
import io
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import PIL
from PIL import Image

from finetune.checking import pdq
from finetune.console import machine
from finetune.console.files import write_atomically
from finetune.console.lazy import tf
from finetune.console.terminal import Progress
from finetune.records import dataset, examples, stored
from finetune.records.dataset import Records

GLANCE = 256  # Pixels: the short side that a large JPEG is decoded to, at least; that takes an eighth of the time.
SMALL = 256  # Pixels: the long side at which sharpness is judged, near what networks see.
STANDARD_TABLE = 3689  # The sum of the luminance quantisation table that the JPEG standard proposes: quality 50.
UNIFORM = 8  # Of 255: a row of pixels between whose darkest and lightest there is no more is a border.

GLIMPSE = np.dtype([
    ('digest', 'V16'), ('bits', 'u1', 32), ('hash_quality', 'u1'),
    ('height', 'i4'), ('width', 'i4'), ('bytes', 'i4'), ('is_png', '?'), ('jpeg_quality', 'f4'), ('borders', 'f4', 4),
    ('dark_end', 'f4'), ('bright_end', 'f4'), ('contrast', 'f4'), ('colour', 'f4'), ('sharpness', 'f4'),
])
LOOK = 1  # Another one when `look` sees something else in the same picture.
GLIMPSES = 'glimpses.npy'
AT_A_TIME = 16
KEPT = np.dtype([('picture', stored.DIGEST), ('glimpse', GLIMPSE), ('check', '<u4')])


@dataclass(frozen=True)
class Album:
    """Every picture of some splits, in the order of the shards: that of kept features too."""

    splits: tuple[str, ...]
    class_names: tuple[str, ...]  # By label; 0 is the background.
    split: np.ndarray  # int [n], a place in `splits`.
    labels: np.ndarray  # int [n]
    filenames: list[bytes]  # CLASS/NAME
    glimpses: np.ndarray  # GLIMPSE [n]

    def name(self, place: int) -> bytes:
        """SPLIT/CLASS/NAME"""
        return self.splits[self.split[place]].encode() + b'/' + self.filenames[place]


def read(data: Records, splits: tuple[str, ...], threads: int | None = None, directory: Path | None = None) -> Album:
    """Looks at every picture, on all cores; of the pictures themselves no more than a few are held at a time.

    What was seen is kept in the directory, if one is given, so that another time only new pictures are looked at.
    """
    held = [stored.read(data, name) for name in splits]
    digests = np.concatenate([each.digests for each in held])
    glimpses, is_known = _kept(directory, digests)
    split = np.repeat(np.arange(len(splits)), [len(each.labels) for each in held])
    with Progress('Looking at pictures', len(digests), 'pictures') as progress:
        progress.start_at(int(is_known.sum()))
        for number, name in enumerate(splits):
            new = np.flatnonzero((split == number) & ~is_known)
            for seen in _new_glimpses(data, name, ~is_known[split == number], threads) if len(new) else ():
                some, new = new[:len(seen)], new[len(seen):]
                glimpses[some] = seen[:len(some)]  # More than were counted: the records are being replaced.
                progress.advance(len(some))
    dataset.check_unchanged(data.directory, data.fingerprint)  # Or what was seen of others would be kept as of these.
    if directory and not is_known.all():
        _keep(directory, digests, glimpses)
    labels = np.concatenate([each.labels for each in held]).astype(int)
    return Album(splits, data.labels, split, labels, [name for each in held for name in each.filenames], glimpses)


def _new_glimpses(data: Records, split: str, asked: np.ndarray, threads: int | None) -> Iterator[np.ndarray]:
    """GLIMPSE [b] of the pictures that are asked for, in their order.

    A thread a core takes some at a time: with more threads, or one picture each, all of it takes half as long again.
    """
    def seen(batch):
        return tf.numpy_function(
            lambda batch: b''.join(look(encoded).tobytes() for encoded in batch), [batch], tf.string, stateful=False)

    records = stored.only(tf.data.TFRecordDataset(data.paths(split)), asked)
    pictures = records.map(lambda _, serialized: examples.parse(serialized)['encoded']).batch(AT_A_TIME)
    looked_at = pictures.map(seen, num_parallel_calls=threads or machine.cores(), deterministic=True)
    for glimpses in looked_at.prefetch(1).as_numpy_iterator():
        yield np.frombuffer(glimpses, GLIMPSE)


def _kept(directory: Path | None, digests: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(GLIMPSE [n], bool [n]: whether it is known) of the pictures with these digests."""
    glimpses, rows = np.zeros(len(digests), GLIMPSE), np.full(len(digests), -1)
    try:
        kept = np.load(directory / GLIMPSES) if directory else np.zeros(0, KEPT)
        if kept.dtype == KEPT:
            kept = kept[kept['check'] == _checks(kept['glimpse'])]
            rows = stored.find(digests, kept['picture'])
            glimpses[rows >= 0] = kept['glimpse'][rows[rows >= 0]]
    except (OSError, ValueError, EOFError):  # It is not there or damaged: what it held is seen again.
        pass
    return glimpses, rows >= 0


def _keep(directory: Path, digests: np.ndarray, glimpses: np.ndarray) -> None:
    kept = np.empty(len(digests), KEPT)
    kept['picture'], kept['glimpse'], kept['check'] = digests, glimpses, _checks(glimpses)
    content = io.BytesIO()
    np.save(content, kept)
    write_atomically(directory / GLIMPSES, content.getvalue())


def _checks(glimpses: np.ndarray) -> list[int]:
    """A CRC-32 of each, which begins with what decides how pictures are seen: that of another look never fits."""
    begin = zlib.crc32(f'{LOOK} {PIL.__version__}'.encode())
    return [zlib.crc32(glimpse.tobytes(), begin) for glimpse in glimpses]


def look(encoded: bytes) -> np.ndarray:
    """The GLIMPSE of one stored picture."""
    image = Image.open(io.BytesIO(encoded), formats=['JPEG', 'PNG'])
    width, height = image.size
    seen = np.zeros((), GLIMPSE)
    seen['height'], seen['width'], seen['bytes'] = height, width, len(encoded)
    seen['is_png'] = image.format == 'PNG'
    seen['jpeg_quality'] = jpeg_quality(image)
    image.draft('RGB', (GLANCE, GLANCE))
    image = image.convert('RGB')
    pixels = np.asarray(image)
    seen['digest'] = hashlib.blake2b(pixels.tobytes(), digest_size=16, salt=f'{height}x{width}'.encode()[:16]).digest()
    gray = image.convert('L')
    bits, seen['hash_quality'] = pdq.hashed(gray)
    seen['bits'] = np.packbits(bits)
    seen['borders'] = _borders(np.asarray(gray))
    gray.thumbnail((SMALL, SMALL), Image.Resampling.BOX)
    seen['dark_end'], seen['bright_end'] = _ends(np.array(gray.histogram()))
    light = np.asarray(gray, np.float32) / 255
    seen['contrast'] = light.std()
    seen['colour'] = pixels.reshape(-1, 3)[::16].std(axis=0).max() / 255
    seen['sharpness'] = _sharpness(light)
    return seen


def jpeg_quality(image: Image.Image) -> float:
    """The quality 1 to 100 that the quantisation tables of a JPEG were made for; 100 for what has none."""
    table = getattr(image, 'quantization', {}).get(0)
    if not table:
        return 100.0
    scale = 100 * sum(table) / STANDARD_TABLE
    return min(100.0, max(1.0, (200 - scale) / 2 if scale <= 100 else 5000 / scale))


def _borders(gray: np.ndarray) -> tuple[float, ...]:
    """The share of the height (top, bottom) and of the width (left, right) that is one colour up to the edge."""
    found = []
    for axis in (1, 0):
        shown = np.flatnonzero(gray.max(axis=axis) - gray.min(axis=axis) > UNIFORM)
        lines = gray.shape[1 - axis]
        found += [shown[0] / lines, (lines - 1 - shown[-1]) / lines] if len(shown) else [1.0, 1.0]
    return tuple(found)


def _ends(histogram: np.ndarray) -> np.ndarray:
    """The light below which a twentieth of the pixels are, and all but a twentieth."""
    below = np.cumsum(histogram) / histogram.sum()
    return np.searchsorted(below, (0.05, 0.95)) / 255


def _sharpness(light: np.ndarray) -> float:
    """How much of the contrast lies between a pixel and its four neighbours."""
    if min(light.shape) < 3:
        return 1.0
    inner = light[1:-1, 1:-1]
    bend = 4 * inner - light[:-2, 1:-1] - light[2:, 1:-1] - light[1:-1, :-2] - light[1:-1, 2:]
    return float(bend.std() / (light.std() + 1e-3))
