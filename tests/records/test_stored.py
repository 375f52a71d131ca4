import numpy as np

from finetune.records import stored
from tests import toy_run


def test_equal_pictures_have_equal_digests_in_whatever_records_they_stand(tmp_path):
    one = toy_run.write_records(tmp_path / 'one', train=[0, 70, 5, 0], validation=[0, 0, 3, 0])
    other = toy_run.write_records(tmp_path / 'other', test=[0, 9, 0, 0])
    number = {}  # By digest; the picture of a number is the same in every split.
    for found in (stored.read(one, 'train'), stored.read(one, 'validation'), stored.read(other, 'test')):
        for filename, digest in zip(found.filenames, found.digests.tolist(), strict=True):
            assert number.setdefault(digest, filename.split(b'/')[1]) == filename.split(b'/')[1]
    assert len(number) == 75


def test_it_is_in_the_order_of_the_shards_and_names_the_labels(tmp_path):
    data = toy_run.write_records(tmp_path / 'records', train=[0, 2, 3, 0])
    found = stored.read(data, 'train')
    assert found.filenames == [b'blue/0.jpg', b'green/2.jpg', b'green/4.jpg', b'blue/1.jpg', b'green/3.jpg']
    np.testing.assert_array_equal(found.labels, [1, 2, 2, 1, 2])
