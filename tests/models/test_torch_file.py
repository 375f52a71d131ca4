"""A file of PyTorch is read for its tensors; whatever else it holds is refused, and nothing in it is ever run."""

import hashlib
import time

import numpy as np
import pytest

from finetune.console.errors import Error
from finetune.models import torch_file
from tools.torture import hostile_files
from tools.torture.hostile_files import TORCH

ARRAYS = {'a.weight': np.arange(24, dtype=np.float32).reshape(2, 3, 4), 'b': np.array(7, np.int64)}


def read(path):
    """As if it were the file that is known."""
    plain = path.is_file() and path.stat().st_size < torch_file.MOST_BYTES
    return torch_file.read(path, hashlib.sha256(path.read_bytes()).hexdigest() if plain else '')


def test_tensors_come_as_they_were_saved(tmp_path):
    (tmp_path / 'x.pth').write_bytes(hostile_files.torch_file(ARRAYS))
    found = read(tmp_path / 'x.pth')
    assert list(found) == list(ARRAYS)
    for name, array in ARRAYS.items():
        np.testing.assert_array_equal(found[name], array)
        assert found[name].dtype == array.dtype


def test_a_tensor_that_was_turned_is_turned_here_too(tmp_path):
    """As kernels are that came from TensorFlow: their numbers lie in another order than their axes."""
    turned = ARRAYS['a.weight'].transpose(2, 0, 1)
    (tmp_path / 'x.pth').write_bytes(hostile_files.torch_file({'a': turned}))
    np.testing.assert_array_equal(read(tmp_path / 'x.pth')['a'], turned)


@pytest.mark.parametrize('name', TORCH)
def test_what_is_no_file_of_tensors_is_refused_at_once_and_not_run(tmp_path, name):
    TORCH[name](tmp_path / 'x.pth', tmp_path / 'canary')
    started = time.monotonic()
    with pytest.raises(Error, match=r'x\.pth'):
        read(tmp_path / 'x.pth')
    assert time.monotonic() - started < 2 and not (tmp_path / 'canary').exists()


@pytest.mark.parametrize('name', ['a program for a tensor', 'a program in new words'])
def test_a_program_is_refused_by_what_it_asks_for(tmp_path, name):
    TORCH[name](tmp_path / 'x.pth', tmp_path / 'canary')
    with pytest.raises(Error, match=r'posix system, which is no tensor|the word \w+, which no tensor needs'):
        read(tmp_path / 'x.pth')


def test_a_file_cut_short_anywhere_is_refused(tmp_path):
    whole = hostile_files.torch_file(ARRAYS)
    for length in range(len(whole)):
        (tmp_path / 'x.pth').write_bytes(whole[:length])
        with pytest.raises(Error, match='cannot be read as a file of tensors'):
            read(tmp_path / 'x.pth')


def test_no_turned_bit_gives_more_than_other_numbers(tmp_path):
    """A sentence, or arrays: never another exception. Of a file with a known checksum not even other numbers."""
    whole = bytearray(hostile_files.torch_file(ARRAYS))
    known = hashlib.sha256(whole).hexdigest()
    for place in range(len(whole)):
        for bit in (0, 6):
            whole[place] ^= 1 << bit
            (tmp_path / 'x.pth').write_bytes(whole)
            try:
                found = read(tmp_path / 'x.pth')
                assert all(isinstance(array, np.ndarray) for array in found.values())
            except Error:
                pass
            with pytest.raises(Error, match='sha256'):
                torch_file.read(tmp_path / 'x.pth', known)
            whole[place] ^= 1 << bit
