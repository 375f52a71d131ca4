"""Odd, broken and hostile pictures: R1 to R5."""

import contextlib
import csv
import importlib.util
import io
import os
import random
import re
import resource
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from finetune import build
from finetune.building.sources import labels
from finetune.console.errors import Error, Reject
from finetune.console.lazy import tf
from finetune.pictures import disk, gate
from tests import corpus, toy, toy_build
from tools.torture import children, unless

LITTLE_MEMORY, LONGEST_BUILD = 8 << 30, 300
SILENT = ('hidden_file', 'not_an_image_suffix')  # Counted, never listed.
BY_THE_FOLDER = 'symlink', 'duplicate', 'duplicate_label_conflict'  # Notes about a file that are not about its picture.
SHOWN = ['JPEG', 'PNG', 'GIF', 'WEBP', 'BMP', 'TIFF', 'AVIF', 'JPEG2000']
NOBODY_KNOWS = 'undetectable_damage', 'metadata_damaged'  # What other readers make of it.
LEVELS_LOST = 3.0  # On average by encoding a picture again.
LEVELS_LOST_BEFORE = 8.0  # By the corpus' own 4:2:0 encoding of its picture.
IN_ONE_CHILD = 200


# ---- R1 to R3: the corpus ----


def corpus_becomes_records(place: Path, seed: int, count: int) -> Iterator[str]:
    """R1, R2 and R3 in one build of everything, with little memory and little time."""
    output = place / 'corpus'
    printed, told = _build_corpus(output)
    yield unless('Traceback' not in told and '\x1b' not in printed + told, f'a traceback or an escape: {told}')
    skipped = list(csv.DictReader((output / 'skipped.csv').open(newline='')))
    stored = {record['filename']: record for record in toy_build.read(output)}
    for entry in _expected():
        yield from _judged(entry, stored, skipped)
    yield from _counts_add_up(output, skipped, stored, printed)


def _build_corpus(output: Path, *more: str, code: int = 0) -> tuple[str, str]:
    def little_memory():
        resource.setrlimit(resource.RLIMIT_AS, (LITTLE_MEMORY, LITTLE_MEMORY))

    process = toy_build.start(
        corpus.root() / 'images', output, '--validation_percent=0', *more, preexec_fn=little_memory)
    try:
        printed, told = process.communicate(timeout=LONGEST_BUILD)
    except subprocess.TimeoutExpired:
        process.kill()
        raise AssertionError(f'the build of the corpus did not end within {LONGEST_BUILD} s') from None
    assert process.returncode == code, f'exit code {process.returncode}: {told}'
    return printed, told


def _expected() -> list[dict]:
    """Without what only another user than root can try."""
    return [entry for entry in corpus.manifest()['files'] if not ('not root' in entry['needs'] and os.geteuid() == 0)]


def _judged(entry: dict, stored: dict, skipped: list[dict]) -> Iterator[str]:
    name = corpus.path(entry).removeprefix(os.fsencode(corpus.root()) + b'/images/')
    reasons = {row['reason'] for row in skipped if corpus.stands_for(row['file'], entry)}
    accepted = name in stored
    if entry['either']:
        yield unless(accepted != bool(reasons), f'{entry["id"]}: neither stored nor listed, or both')
    elif entry['reason'] in SILENT:
        yield unless(not accepted and not reasons, f'{entry["id"]} is {reasons or "stored"}')
    elif entry['expect'] == 'reject':
        yield unless(not accepted and entry['reason'] in reasons, f'{entry["id"]}: {reasons}, not {entry["reason"]}')
    else:
        size = stored[name]['size'][::-1] if accepted else None
        yield unless(size == tuple(entry['size']), f'{entry["id"]}: stored as {size}, not {entry["size"]}')
    if accepted and entry['expect'] == 'accept':
        yield _looks_right(entry, stored[name])
        yield _is_noted(entry)


def _looks_right(entry: dict, record: dict) -> str:
    """R2: as TensorFlow reads it, like the file as another reader shows it, and like the picture it was made of."""
    pixels = tf.io.decode_jpeg(record['encoded'], channels=3, dct_method='INTEGER_ACCURATE').numpy().astype(int)
    if pixels.shape[:2] != record['size']:
        return f'{entry["id"]}: decodes to {pixels.shape[:2]}, not {record["size"]}'
    if entry['reason'] in NOBODY_KNOWS:
        return ''
    lost = np.abs(pixels - _as_shown(disk.read(corpus.path(entry)))).mean()
    if lost > LEVELS_LOST:
        return f'{entry["id"]}: {lost:.1f} levels from what is in the file'
    if entry['reason'] == 'exif_rotated' or 'plain' in entry['recipe'] or 'a good JPEG' in entry['recipe']:
        lost = min(np.abs(pixels - base).mean() for base in _bases())
        return unless(lost < LEVELS_LOST_BEFORE, f'{entry["id"]}: {lost:.1f} levels from the upright picture')
    return ''


def _is_noted(entry: dict) -> str:
    if entry['either'] or entry['reason'] in ('', 'suffix_mismatch', *BY_THE_FOLDER):
        return ''
    notes = gate.admit(disk.read(corpus.path(entry))).notes
    return unless(entry['reason'] in notes, f'{entry["id"]}: {notes} without {entry["reason"]}')


def _as_shown(data: bytes) -> np.ndarray:
    """Upright, in 8 bits, on white, by the plain way through Pillow."""
    image = ImageOps.exif_transpose(Image.open(io.BytesIO(data), formats=SHOWN))
    if image.mode.startswith('I'):
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    white = Image.new('RGBA', image.size, 'white')
    white.alpha_composite(image.convert('RGBA'))
    return np.asarray(white.convert('RGB')).astype(int)


def _bases() -> list[np.ndarray]:
    spec = importlib.util.spec_from_file_location('maker', corpus.MAKER)
    maker = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(maker)
    return [np.asarray(maker.base_image(seed=seed)).astype(int) for seed in (0, 1)]


def _counts_add_up(output: Path, skipped: list[dict], stored: dict, printed: str) -> Iterator[str]:
    """R3. A build never loses count; with --strict it changes nothing."""
    told, names = toy_build.manifest(output), Counter(record['filename'] for record in toy_build.read(output))
    yield unless(max(names.values()) == 1, f'more than once in the shards: {names.most_common(3)}')
    yield unless(told['found'] == told['written'] + sum(told['skipped'].values()), 'found is not written + skipped')
    yield unless(told['written'] == len(stored), f'{told["written"]} written, {len(stored)} in the shards')
    by_reason = Counter(row['reason'] for row in skipped)
    yield unless(by_reason == Counter(told['skipped']), f'listed {by_reason}, counted {told["skipped"]}')
    yield unless(printed.splitlines()[-1].startswith('WARNING'), 'more than 5 % were skipped and the last line is calm')
    before = toy_build.digests(output)
    _build_corpus(output, '--strict', code=1)
    yield unless(toy_build.digests(output) == before, '--strict changed the records')


# ---- R4: damage at random ----


def mutants(place: Path, seed: int, count: int) -> Iterator[str]:
    """Each child judges some twice, and TensorFlow's strict decoder reads what is let in."""
    admitted = 0
    for first in range(0, count, IN_ONE_CHILD):
        numbers = range(first, min(first + IN_ONE_CHILD, count))
        ended = children.run(judge_mutants, seed, numbers, seconds=120)
        if ended.trouble:
            yield f'the child that judged mutants {numbers} of seed {seed} {ended.trouble}'
            continue
        cases, here = ended.result
        admitted += here
        yield from cases
    if not count / 10 < admitted < count:
        yield f'{admitted} of {count} admitted: these mutants test nothing'


def judge_mutants(seed: int, numbers: range) -> tuple[list[str], int]:
    """A line for each, and how many were admitted."""
    originals, cases, admitted = _originals(), [], 0
    for number in numbers:
        data = mutant(random.Random(f'{seed} {number}'), originals[number % len(originals)])
        first, second = verdict(data), verdict(data)
        admitted += bool(first[1])
        cases.append(unless(first == second and _trains(*first), f'mutant {number} of seed {seed}: {first[0]}'))
    return cases, admitted


def _originals() -> list[bytes]:
    plain = toy.picture(size=(48, 32))
    turned = Image.Exif()
    turned[0x0112] = 6
    jpegs = [toy.encoded(plain, 'JPEG', quality=95, **options) for options in (
        {}, {'progressive': True}, {'subsampling': 2, 'restart_marker_rows': 1}, {'exif': turned.tobytes()})]
    return [*jpegs, toy.encoded(plain.convert('L')), toy.encoded(plain, 'PNG'), toy.encoded(plain.quantize(16), 'PNG'),
            toy.encoded(plain, 'GIF'), toy.encoded(plain, 'WEBP'), toy.encoded(plain, 'BMP'), toy.encoded(plain, 'PPM'),
            *_originals_of_libraries(plain, turned.tobytes())]


def _originals_of_libraries(plain: Image.Image, turned: bytes) -> list[bytes]:
    """Of the formats whose decoders have the worst record, more than one kind each."""
    clear, grey, several = plain.copy(), plain.convert('L'), {'save_all': True, 'append_images': [plain.rotate(90)]}
    clear.putalpha(100)
    tiffs = [toy.encoded(plain, 'TIFF', compression=name, exif=turned) for name in (
        'raw', 'tiff_lzw', 'tiff_adobe_deflate', 'packbits', 'jpeg')]
    tiffs += [toy.encoded(plain.convert('1'), 'TIFF', compression='group4'), toy.encoded(plain, 'TIFF', **several),
              toy.encoded(grey.convert('I;16'), 'TIFF', compression='tiff_lzw')]
    avifs = [toy.encoded(plain, 'AVIF', exif=turned), toy.encoded(clear, 'AVIF'), toy.encoded(plain, 'AVIF', **several)]
    jpeg2000s = [toy.encoded(plain, 'JPEG2000'), toy.encoded(clear, 'JPEG2000', tile_size=(16, 16)),
                 toy.encoded(grey, 'JPEG2000', no_jp2=True), toy.encoded(plain, 'JPEG2000', irreversible=True)]
    return tiffs + avifs + jpeg2000s + _heics(plain, clear, turned)


def _heics(plain: Image.Image, clear: Image.Image, turned: bytes) -> list[bytes]:
    try:
        import pillow_heif
    except ImportError:
        return []
    pillow_heif.register_heif_opener()
    several = {'save_all': True, 'append_images': [plain.rotate(90)]}
    return [toy.encoded(plain, 'HEIF', exif=turned), toy.encoded(clear, 'HEIF'), toy.encoded(plain, 'HEIF', **several)]


def mutant(rng: random.Random, good: bytes) -> bytes:
    """A few bits turned, bytes replaced, put in or taken out; half of it near the beginning, where the headers are."""
    data = bytearray(good)
    for _ in range(rng.choice((1, 1, 2, 8))):
        position = rng.randrange(len(data) if rng.random() < 0.5 else min(len(data), 700))
        action = rng.randrange(5)
        if action == 0:
            data[position] ^= 1 << rng.randrange(8)
        elif action == 1:
            data[position] = rng.randrange(256)
        elif action == 2:
            data[position:position] = rng.randbytes(rng.randrange(1, 9))
        elif action == 3 and len(data) > 100:
            del data[position:position + rng.randrange(1, 40)]
        elif action == 4 and rng.random() < 0.1:
            del data[max(100, position):]
    return bytes(data)


def verdict(data: bytes) -> tuple[str, bytes, tuple[int, int]]:
    try:
        picture = gate.admit(data, limits=gate.Limits(max_pixels=4_000_000))
        return 'admitted', picture.encoded, (picture.height, picture.width)
    except Reject as reject:
        return reject.reason, b'', (0, 0)


def _trains(reason: str, encoded: bytes, size: tuple[int, int]) -> bool:
    if reason != 'admitted':
        return True
    return tf.io.decode_jpeg(encoded, channels=3, dct_method='INTEGER_ACCURATE').shape[:2] == size


# ---- R5: folders and labels files ----

SAID = {  # Of a folder or a labels file that is refused, or taken with a warning.
    'no_classes': r'The layout is DIRECTORY/CLASS/PICTURE\.jpg',
    'nested_folder': r'Did you mean --train_directory=\S*train',
    'class_only_in_validation': 'class emu has no folder in',
    'one_class': 'there is one class',
    'empty_class': 'no usable picture of dog',
    'stray_files': '1 pictures beside the class folders',
    'classes_differ_in_case': 'differ only in case,',
    'classes_differ_in_normal_form': 'differ only .*in Unicode normal form',
    'fewer_images_than_shards': r'more shards \(8\) than pictures',
    'train_validation_overlap': 'in train and in validation',
    'not_utf8': r'line \d+ is not UTF-8; save the file',
    'blank_line': 'line 2 is blank.* Delete it',
    'duplicate_label': 'line 3 repeats .cat. of line 1.* Delete one',
    'no_labels': 'holds no label; write one',
    'bad_label': r'line 1 \(.*cannot be a class; a label is the name of a folder',
    'folder_missing': 'has no folder for|none of its 2 classes has a folder',
    'folder_not_listed': 'dog not in the labels file: 5 pictures',
}
OF_OTHER_FOLDERS = 'csv.txt'  # A good labels file, with none of the folders that there are.


def folders_and_labels(place: Path, seed: int, count: int) -> Iterator[str]:
    for entry in corpus.manifest()['trees']:
        tree = corpus.root() / entry['path']
        split = (tree / 'validation').is_dir() and entry['id'] != 'wrapped'
        flags = [f'--validation_directory={tree}/validation'] if split else ['--validation_percent=0']
        yield _one_build(place, tree / 'train' if split else tree, entry, *flags, '--train_shards=8')
    good = corpus.root() / 'trees/good'
    for entry in corpus.manifest()['labels']:
        file = corpus.root() / entry['path']
        yield _one_build(place, good, entry, '--validation_percent=0', f'--labels_file={file}', path=file)
        yield _labels_read(file, entry)


def _one_build(place: Path, tree: Path, entry: dict, *flags: str, path: Path | None = None) -> str:
    output, said = place / f'{tree.name}-{entry["id"]}', io.StringIO()
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
        code = build.main([f'--train_directory={tree}', f'--output_directory={output}', '--num_threads=1', *flags])
    told = said.getvalue()
    expected = 0 if entry['expect'] == 'accept' and entry['id'] != OF_OTHER_FOLDERS else 1
    named = expected == 0 or str(path or tree) in told
    right = named and re.search(SAID.get(entry['reason'], ''), told) and 'Traceback' not in told
    return unless(code == expected and right, f'{entry["id"]}: exit code {code}, said {told}')


def _labels_read(file: Path, entry: dict) -> str:
    try:
        got = labels.read_labels(file, [b'cat', b'dog'])
    except Error:
        got = None
    return unless(got == entry['names'], f'{entry["id"]}: read as {got}')


