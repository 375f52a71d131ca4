"""What holds for any number of pictures, any name, any label: R19. Labels files: tests/building/test_folders.py."""

import collections
import tempfile
import unicodedata
from pathlib import Path
from unittest import mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finetune.building import conversion, groups, plan, workers
from finetune.building.sources.labels import label_of
from finetune.console.terminal import printable, shown_by
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


@pytest.mark.slow
@MANY
@given(st.lists(st.integers(), max_size=90))
def test_work_in_this_process_comes_back_in_order_and_once(jobs):
    assert list(workers.ordered_map(str, jobs, processes=1)) == list(map(str, jobs))


PLACES = st.lists(st.tuples(st.integers(0, 40) | st.integers(1, 2**64 - 1), st.integers(0, 3)), max_size=80)
PERCENT = st.floats(1, 99.9)
PERCENT_OR_NONE = st.just(0) | PERCENT


def sides(places: list[tuple[int, int]], validation: float, test: float = 0) -> dict[str, set[tuple[int, int]]]:
    """The (key, label) of each split."""
    keys, labels = [key for key, _ in places], [label for _, label in places]
    found = {split: set() for split in plan.SPLITS}
    for place, split in zip(places, plan.by_content(keys, labels, validation, test), strict=True):
        found[split].add(place)
    return found


def validating(places: list[tuple[int, int]], percent: float) -> set[tuple[int, int]]:
    return sides(places, percent)['validation']


def own_of_each_class(places: list[tuple[int, int]]) -> dict[int, set[tuple[int, int]]]:
    labels_of, own = collections.defaultdict(set), collections.defaultdict(set)
    for key, label in places:
        labels_of[key].add(label)
    for key, label in set(places):
        if key and len(labels_of[key]) == 1:
            own[label].add((key, label))
    return own


@MANY
@given(PLACES, PERCENT, PERCENT)
def test_a_larger_validation_share_only_adds_pictures_to_validation(places, one, other):
    few, many = (validating(places, percent) for percent in sorted((one, other)))
    assert few <= many


@MANY
@given(PLACES, PERCENT_OR_NONE, PERCENT, PERCENT)
def test_a_test_set_switched_on_or_enlarged_takes_training_pictures_alone(places, validation, one, other):
    none, few, many = (sides(places, validation, percent) for percent in (0, *sorted((one, other))))
    assert none['test'] == set() and few['test'] <= many['test']
    assert none['validation'] == few['validation'] == many['validation']


@MANY
@given(PLACES, st.lists(st.tuples(st.integers(0, 79), st.integers(0, 79)), max_size=40), PERCENT_OR_NONE,
       PERCENT_OR_NONE, st.randoms())
def test_no_group_is_torn_whatever_the_order_and_what_stands_alone_trains(places, pairs, validation, test, rng):
    keys, labels = [key for key, _ in places], [label for _, label in places]
    pairs = [pair for pair in pairs if max(pair) < len(places)]
    shared = groups.shared_keys(pairs, keys)
    splits = plan.by_content(keys, labels, validation, test, shared)
    assert all(splits[one] == splits[other] for one, other in pairs if keys[one] and keys[other])
    assert all('train' in {split for split, other in zip(splits, labels, strict=True) if other == label}
               for label in labels)
    rng.shuffle(pairs)
    assert groups.shared_keys([pair[::-1] for pair in pairs], keys) == shared


@MANY
@given(PLACES, PERCENT_OR_NONE, PERCENT_OR_NONE)
def test_every_class_trains_then_validates_and_then_tests(places, validation, test):
    """As far as its pictures go; one with two labels is no class's own and trains."""
    own, found = own_of_each_class(places), sides(places, validation, test)
    for pictures in own.values():
        shares, left = {}, len(pictures) - 1
        for split, percent in (('validation', validation), ('test', test)):
            shares[split] = min(max(1, round(len(pictures) * percent / 100)), left) if percent else 0
            left -= shares[split]
        assert {split: len(pictures & found[split]) for split in shares} == shares
        assert pictures & found['train']
    assert found['validation'] | found['test'] <= set().union(*own.values())


@MANY
@given(PLACES, PERCENT, PERCENT, st.randoms())
def test_copies_are_in_one_of_three_splits(places, validation, test, random):
    more = places + places[:20]
    random.shuffle(more)
    found = sides(more, validation, test)
    assert found == sides(places, validation, test)
    keys_of = [{key for key, _ in of_split} for of_split in found.values()]
    assert sum(map(len, keys_of)) == len(set().union(*keys_of))


@MANY
@given(PLACES, PERCENT_OR_NONE, PERCENT, st.integers(1, 2**64 - 1), st.integers(0, 3))
def test_one_picture_more_moves_at_most_one_into_or_out_of_a_test_set_of_its_class(
    places, validation, test, key, label
):
    before, after = sides(places, validation, test), sides([*places, (key, label)], validation, test)
    others = {place for place in places if place[0] != key}
    assert not before['validation'] & after['test'] & others and not before['test'] & after['validation'] & others
    for split in ('validation', 'test'):
        moved = (before[split] ^ after[split]) & others
        assert all(len({place for place in moved if place[1] == found}) <= 1 for found in range(4))


@MANY
@given(PLACES, PERCENT, st.randoms())
def test_the_split_depends_on_neither_order_nor_copies_and_keeps_copies_together(places, percent, random):
    more = places + places[:20]
    random.shuffle(more)
    assert validating(more, percent) == validating(places, percent)
    assert not {key for key, _ in validating(more, percent)} & {
        key for key, label in more if (key, label) not in validating(more, percent)}


@MANY
@given(PLACES, PERCENT, st.integers(1, 2**64 - 1), st.integers(0, 3))
def test_one_picture_more_moves_at_most_one_of_its_class(places, percent, key, label):
    before = validating(places, percent)
    after = validating([*places, (key, label)], percent)
    moved = (before ^ after) - {(key, label)}
    labels = {found for other, found in places if other == key} | {label}  # It may be no longer one class's own.
    assert all(len({place for place in moved if place[1] == found and place[0] != key}) <= 1 for found in range(4))
    assert {found for other, found in moved if other != key} <= labels


@MANY
@given(st.lists(st.binary(max_size=40), max_size=30), st.integers(1, 200))
def test_what_waits_for_its_split_comes_back_in_order_and_leaves_nothing(records, file_bytes):
    with tempfile.TemporaryDirectory() as directory, mock.patch.object(conversion, 'SPOOL_FILE_BYTES', file_bytes):
        with conversion.spool(Path(directory)) as spool:
            for number, record in enumerate(records):
                spool.write(3 * number, number % 5, record)
            assert list(spool.read()) == [(3 * number, number % 5, record) for number, record in enumerate(records)]
        assert not list(Path(directory).iterdir())


@MANY
@given(st.lists(st.sampled_from([0, 1, 2, 2**60, 2**64 - 1]), max_size=30))
def test_every_repeated_key_is_found_and_no_other(keys):
    counts = collections.Counter(keys)
    assert conversion.repeated([keys]) == {key for key, count in counts.items() if count > 1 and key}


@MANY
@given(NAMES)
def test_a_shown_name_is_one_harmless_line_from_which_the_name_comes_back(name):
    shown = printable(name)
    assert not {unicodedata.category(character) for character in shown} & {'Cc', 'Cf', 'Cs', 'Zl', 'Zp'}
    assert shown_by(shown) == name


@MANY
@given(st.text(st.sampled_from('\\nrtxuU05b\n\x1b\u202e') | st.characters(exclude_categories=['Cs']), max_size=20))
def test_two_texts_never_look_the_same(text):
    """One that holds the characters of an escape is not taken for what that escape stands for."""
    assert shown_by(printable(text)) == text.encode()


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
