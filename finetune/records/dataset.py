"""Records: a directory of TFRecord shards of labelled pictures. `dataset.json`, written last, says what is in it.

Shard names are read from there and never globbed: shards of an earlier build, a missing shard or one that is cut
short are found before the first step. Label 0 is the background; the model has one output for each label.
"""

import csv
import hashlib
import itertools
import json
import os
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from finetune.console.errors import Error
from finetune.console.terminal import listed, printable
from finetune.records.tfrecord import Shard, ShardWriter

__all__ = [
    'BACKGROUND', 'MANIFEST', 'Records', 'Shard', 'ShardWriter', 'Split', 'check_treatment', 'open_records', 'verify',
]

SCHEMA_VERSION = 1
BACKGROUND = 'background'
MANIFEST, LABELS, SKIPPED = 'dataset.json', 'labels.txt', 'skipped.csv'
KNOWN = 'schema_version', 'fingerprint', 'labels', 'format', 'splits'  # What a reader of dataset.json needs.
SHARD_NAME = re.compile(r'[a-z]+-[0-9]{5}-of-[0-9]{5}')
TREATED_BY = {  # The least that each may be.
    'max_side': 0, 'short_side': 0, 'sixteen_bit_max': 1, 'max_bytes': 1, 'max_pixels': 1,
}
GZIP = b'\x1f\x8b'
BUILD_AGAIN = 'Run `finetune build` again (from a checkout: python -m tools.build_tfrecords).'
WAYS_TO = {  # The splits that a build makes only where it is given pictures for them, or enough.
    split: f'; or run `finetune build` again with more pictures a class, --{split}_percent={percent}, or '
           f'--{split}_directory' for split, percent in (('validation', 20), ('test', 10))}


@dataclass(frozen=True)
class Split:
    name: str
    records: int
    per_class: tuple[int, ...]  # By label; 0 is the background.
    shards: tuple[Shard, ...]


@dataclass(frozen=True)
class Records:
    directory: Path
    labels: tuple[str, ...]  # labels[0] is the background.
    splits: dict[str, Split]
    fingerprint: str  # Of labels, counts and shard hashes: other records, another fingerprint.
    format: str = 'JPEG'  # Of every picture: 'JPEG' or 'PNG'.
    treatment: dict = field(default_factory=dict)  # What the gate must be told to make of a file what it is in here.

    def __fspath__(self) -> str:
        return os.fspath(self.directory)

    def __repr__(self) -> str:
        counts = ', '.join(f'{split.records} {split.name}' for split in self.splits.values())
        return f'<finetune.Records {str(self.directory)!r}: {counts}; {len(self.labels) - 1} classes>'

    @property
    def num_classes(self) -> int:
        """How many outputs a model needs: all labels, the background included."""
        return len(self.labels)

    def split(self, name: str) -> Split:
        if name not in self.splits:
            raise Error(f'{printable(self.directory)} has no {printable(name)} pictures; it has '
                        f'{listed(list(self.splits))}. --subset names another split{WAYS_TO.get(name, "")}.')
        return self.splits[name]

    def paths(self, split_name: str) -> list[bytes]:
        """Of the shards; as bytes, because TensorFlow takes text in UTF-8 only."""
        return [os.fsencode(self.directory / shard.name) for shard in self.split(split_name).shards]


# ---- dataset.json ----


def shard_name(split: str, index: int, count: int) -> str:
    return f'{split}-{index:05d}-of-{count:05d}'


def manifest(labels: Sequence[str], splits: Sequence[Split], format: str, facts: dict) -> dict:
    """What dataset.json holds. `facts` is what a reader need not know: where it came from, what was skipped, …"""
    core = {
        'labels': list(labels),
        'format': format,
        'splits': {split.name: {key: value for key, value in asdict(split).items() if key != 'name'}
                   for split in splits},
    }
    return {'schema_version': SCHEMA_VERSION, 'fingerprint': _fingerprint(core), **core, **facts}


def _fingerprint(core: dict) -> str:
    text = json.dumps({key: core[key] for key in ('labels', 'format', 'splits')}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def is_marked(directory: Path) -> bool:
    """Whether a build made this directory, even if it has been damaged since."""
    try:
        return b'"schema_version"' in (directory / MANIFEST).read_bytes()[:200]
    except OSError:
        return False


def open_records(directory: str | os.PathLike) -> Records:
    """Reads dataset.json and checks that every shard it lists is there, of the size it says. Raises Error."""
    directory = Path(directory)
    content = _read_manifest(directory)
    try:
        splits = {name: _split(name, **facts) for name, facts in content['splits'].items()}
        told = {name: value for name, value in content.get('stored_by', {}).items() if name in TREATED_BY}
        treatment = check_treatment({'format': content['format'], **told})
        opened = Records(
            directory, tuple(content['labels']), splits, content['fingerprint'], content['format'], treatment)
        genuine = content['fingerprint'] == _fingerprint(content)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise Error(f'{_manifest_path(directory)} was not written by this program ({type(error).__name__}: '
                    f'{printable(str(error))}). {BUILD_AGAIN}') from None
    if not genuine:
        raise Error(f'{_manifest_path(directory)} was changed or damaged after it was written: its fingerprint '
                    f'does not fit. {BUILD_AGAIN}')
    _check_counts(opened)
    _check_files(opened)
    return opened


def told(records: Records) -> dict:
    """What the build told of how the records came about: found, skipped, notes, …; empty where it told nothing."""
    return {name: value for name, value in _read_manifest(records.directory).items() if name not in KNOWN}


def skipped(records: Records, most: int) -> list[dict[str, str]]:
    """The first rows of skipped.csv: file (printable), reason, detail."""
    try:
        with (records.directory / SKIPPED).open(newline='', errors='replace') as file:
            return list(itertools.islice(csv.DictReader(file), most))
    except OSError:  # Records of other programs have none; what it lists is no picture of theirs.
        return []


def check_unchanged(directory: Path, fingerprint: str) -> None:
    """Raises Error where another build has replaced the records that had this fingerprint when they were opened.

    It puts other shards under the same names, perhaps with the classes numbered anew.
    """
    if _read_manifest(directory)['fingerprint'] != fingerprint:
        raise Error(f'the records in {printable(directory)} were built again while they were read, so that '
                    'two sets were mixed. Start again.')


def check_treatment(treatment: dict) -> dict:
    """The treatment, if the gate can be told all of it. Raises ValueError."""
    if not isinstance(treatment, dict):
        raise ValueError(f'{treatment!r} is no treatment')
    for name, value in treatment.items():
        number = name in TREATED_BY and type(value) is int and TREATED_BY[name] <= value < 1 << 63
        if not number and (name, value) not in (('format', 'JPEG'), ('format', 'PNG')):
            raise ValueError(f'{name}={value!r}')
    return treatment


def verify(records: Records) -> None:
    """Reads every shard and compares its sha256. Raises Error and names the first that differs."""
    for shard in itertools.chain(*(split.shards for split in records.splits.values())):
        with (records.directory / shard.name).open('rb') as file:
            found = hashlib.file_digest(file, 'sha256').hexdigest()
        if found != shard.sha256:
            raise Error(f'{printable(records.directory / shard.name)}: its sha256 differs from dataset.json: '
                        f'damaged or changed since it was written. {BUILD_AGAIN}')


def _split(name: str, records: int, per_class: list[int], shards: list[dict]) -> Split:
    return Split(name, records, tuple(per_class), tuple(Shard(**shard) for shard in shards))


def _manifest_path(directory: Path) -> str:
    return printable(directory / MANIFEST)


def _read_manifest(directory: Path) -> dict:
    if not directory.is_dir():
        what = 'is a file' if directory.exists() else 'does not exist'
        raise Error(f'{printable(directory)} {what}; --data_dir is a directory of records. `finetune build` makes '
                    'one.')
    path = directory / MANIFEST
    if not path.is_file():
        raise Error(f'{printable(directory)} holds no {MANIFEST}{_what_it_is(directory)}')
    try:
        content = json.loads(path.read_bytes())
        version = content['schema_version']
    except (ValueError, RecursionError, KeyError, TypeError):
        raise Error(f'{printable(path)} cannot be read: it is damaged, or another program wrote it. '
                    f'{BUILD_AGAIN}') from None
    if version != SCHEMA_VERSION:
        raise Error(f'{printable(path)} has schema version {printable(str(version))}; this program reads '
                    f'{SCHEMA_VERSION}. {BUILD_AGAIN}')
    return content


def _what_it_is(directory: Path) -> str:
    """The rest of the sentence about a directory that is no records."""
    entries = sorted(itertools.islice(directory.iterdir(), 1000))
    shards = [entry for entry in entries if entry.is_file() and ('-of-' in entry.name or 'tfrec' in entry.name)]
    if shards and _first_bytes(shards[0]) == GZIP:
        return f'; {printable(shards[0].name)} is compressed with gzip, which is not read here. {BUILD_AGAIN}'
    if shards:
        return (f': {printable(shards[0].name)} was written by another program, whose counts and labels are not '
                f'known. {BUILD_AGAIN}')
    if any(entry.is_dir() for entry in entries):
        return (f': it looks like folders of pictures. Make records of them: `finetune build '
                f'--train_directory={printable(directory)} --output_directory=…`')
    return ': no build has finished here. Make records: `finetune build --train_directory=… --output_directory=…`'


def _first_bytes(path: Path) -> bytes:
    with path.open('rb') as file:
        return file.read(len(GZIP))


def _check_counts(records: Records) -> None:
    """Numbers that contradict each other inside dataset.json."""
    where = _manifest_path(records.directory)
    if len(records.labels) < 2 or records.labels[0] != BACKGROUND:
        raise Error(f'{where}: the labels must be {BACKGROUND!r} and at least one class. {BUILD_AGAIN}')
    for split in records.splits.values():
        if len(split.per_class) != len(records.labels):
            raise Error(f'{where}: {split.name} counts {len(split.per_class)} labels where there are '
                        f'{len(records.labels)}: a label is out of range. {BUILD_AGAIN}')
        if not split.records == sum(split.per_class) == sum(shard.records for shard in split.shards):
            raise Error(f'{where}: the counts of {split.name} do not add up. {BUILD_AGAIN}')
    if not records.splits or not all(split.records for split in records.splits.values()):
        raise Error(f'{where} lists no pictures. {BUILD_AGAIN}')


def _check_files(records: Records) -> None:
    for shard in itertools.chain(*(split.shards for split in records.splits.values())):
        path = records.directory / shard.name
        if Path(shard.name).name != shard.name or not path.is_file():
            raise Error(f'{printable(path)} is missing; dataset.json lists it with {shard.records} records. '
                        f'{BUILD_AGAIN}')
        size = path.stat().st_size
        if size != shard.bytes:
            raise Error(f'{printable(path)} has {size} bytes, dataset.json says {shard.bytes}: it is '
                        f'{"cut short" if size < shard.bytes else "of another build"}. {BUILD_AGAIN}')
