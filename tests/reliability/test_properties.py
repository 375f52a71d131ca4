"""What holds for any number of pictures, any name, any label: R19. Labels files: tests/building/test_folders.py."""

import collections
import re
import tempfile
import unicodedata
from pathlib import Path
from unittest import mock

from hypothesis import given, settings
from hypothesis import strategies as st

from finetune.building import conversion, plan, workers
from finetune.building.sources.labels import label_of
from finetune.console.terminal import printable
from finetune.evaluation.results import json_text
from finetune.records import dataset

MANY = settings(max_examples=500, deadline=None)
NAMES = st.binary(min_size=1, max_size=20).filter(lambda name: b'/' not in name and b'\0' not in name)


@MANY
@given(st.integers(1, 200), st.integers(1, 12), st.sets(st.integers(0, 199)))
def test_every_place_that_is_not_rejected_is_in_one_shard_once_and_in_its_order(places, shards, rejected):
    kept = [place for place in range(places) if place not in rejected]
    with tempfile.TemporaryDirectory() as directory, mock.patch('os.fsync'):  # Which takes nearly all of the time.
        writer = conversion.SplitWriter(Path(directory), 'train', shards, places, labels=2)
        for place in kept:
            writer.write(place, place % 2, b'%d' % place)
        split = writer.close()
        found = [_records_of(Path(directory, shard.name)) for shard in split.shards]
    assert [place for shard in found for place in shard] == kept
    assert [shard.records for shard in split.shards] == list(map(len, found))
    assert split.records == len(kept) == sum(split.per_class) and len(found) == shards
    assert all(len(shard) <= -(-places // shards) for shard in found)


def _records_of(path: Path) -> list[int]:
    """By the format alone: a length, its checksum, the record, its checksum."""
    data, position, numbers = path.read_bytes(), 0, []
    while position < len(data):
        length = int.from_bytes(data[position:position + 8], 'little')
        numbers.append(int(data[position + 12:position + 12 + length]))
        position += 16 + length
    return numbers


@MANY
@given(st.lists(st.integers(), max_size=90))
def test_work_in_this_process_comes_back_in_order_and_once(jobs):
    assert list(workers.ordered_map(str, jobs, processes=1)) == list(map(str, jobs))


@MANY
@given(st.lists(st.integers(0, 2**64 - 1), max_size=60), st.floats(0.1, 99.9), st.floats(0.1, 99.9))
def test_a_larger_validation_share_only_adds_pictures_to_validation(keys, one, other):
    few, many = (plan.ByContent(percent) for percent in sorted((one, other)))
    assert all(many(key) == 'validation' for key in keys if few(key) == 'validation')


@MANY
@given(st.lists(st.sampled_from([0, 1, 2, 2**60, 2**64 - 1]), max_size=30))
def test_every_repeated_key_is_found_and_no_other(keys):
    counts = collections.Counter(keys)
    assert conversion._repeated([keys]) == {key for key, count in counts.items() if count > 1 and key}


@MANY
@given(NAMES)
def test_a_shown_name_is_one_harmless_line_from_which_the_name_comes_back(name):
    shown = printable(name)
    assert not {unicodedata.category(character) for character in shown} & {'Cc', 'Cf', 'Cs', 'Zl', 'Zp'}
    assert _shown_by(shown) == name.decode('utf-8', 'surrogateescape')


@MANY
@given(st.text(st.sampled_from('\\nrtxuU05b\n\x1b\u202e') | st.characters(exclude_categories=['Cs']), max_size=20))
def test_two_texts_never_look_the_same(text):
    """One that holds the characters of an escape is not taken for what that escape stands for."""
    assert _shown_by(printable(text)) == text


def _shown_by(shown: str) -> str:
    return re.sub(r'\\(?:([\\nrt])|x(..)|u(....)|U(.{8}))', _character, shown)


def _character(match: re.Match) -> str:
    short, *codes = match.groups()
    return {'\\': '\\', 'n': '\n', 'r': '\r', 't': '\t'}[short] if short else chr(int(next(filter(None, codes)), 16))


@MANY
@given(NAMES)
def test_a_label_and_a_name_in_json_are_texts_that_every_reader_takes(name):
    for text in (label_of(name), json_text(name)):
        assert text.encode('utf-8').decode('utf-8') == text
    assert len(label_of(name).splitlines()) <= 1


@MANY
@given(st.integers(1, 99999), st.integers(0, 99999))
def test_the_name_of_a_shard_is_one_that_may_stand_in_records(count, index):
    assert dataset.SHARD_NAME.fullmatch(dataset.shard_name('train', index % count, count))
