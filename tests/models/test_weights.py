"""Weight files are data: what is damaged, odd or leads elsewhere is refused in one sentence before it is read."""

import zlib

import h5py
import numpy as np
import pytest

from finetune.console.errors import Error
from finetune.models import weights
from tests.shared import WEIGHTS, needs_weights
from tests.training.test_pretrained import filled_backbone


def test_weights_that_are_not_numbers_are_refused_by_name(tmp_path):
    backbone = filled_backbone()
    backbone.get_layer('last_conv').bias.assign(np.full(16, np.nan))
    backbone.save_weights(tmp_path / 'nan.weights.h5')
    with pytest.raises(Error, match=r'conv2d_1 are not finite'):
        weights.read(tmp_path / 'nan.weights.h5')


def test_a_flipped_bit_is_noticed_when_a_checksum_stands_beside_the_file(tmp_path):
    path = tmp_path / 'toy.weights.h5'
    filled_backbone().save_weights(path)
    weights.write_checksum(path)
    assert weights.read(path).layers
    content = bytearray(path.read_bytes())
    content[-100] ^= 1
    path.write_bytes(content)
    with pytest.raises(Error, match='sha256 differs'):
        weights.read(path)


@pytest.mark.parametrize(('content', 'sentence'), [
    (b'', 'not an HDF5 weight file'),
    (b'PK\x03\x04 a .keras archive', 'not an HDF5 weight file'),
    (b'\x80\x04 a pickle', 'not an HDF5 weight file'),
    (b'\x89HDF\r\n\x1a\n cut short', 'cannot be read as a weight file'),
])
def test_what_is_no_weight_file_is_refused_before_anything_reads_it(tmp_path, content, sentence):
    path = tmp_path / 'file.h5'
    path.write_bytes(content)
    with pytest.raises(Error, match=sentence):
        weights.read(path)


def test_a_link_out_of_a_weight_file_is_not_followed(tmp_path):
    with h5py.File(tmp_path / 'secret.h5', 'w') as file:
        file['x'] = np.ones(3)
    with h5py.File(tmp_path / 'layer.h5', 'w') as file:
        file.create_group('layers')['conv2d'] = h5py.ExternalLink('secret.h5', '/')
    with h5py.File(tmp_path / 'layers.h5', 'w') as file:
        file['layers'] = h5py.ExternalLink('secret.h5', '/')
    with h5py.File(tmp_path / 'legacy.h5', 'w') as file:
        file.attrs['layer_names'] = [b'conv2d']
        file['conv2d'] = h5py.ExternalLink('secret.h5', '/')
    for name in ('layer.h5', 'layers.h5', 'legacy.h5'):
        with pytest.raises(Error, match='link'):
            weights.read(tmp_path / name)


@pytest.mark.parametrize('place', ['layers/model/layers', 'layers/model/layers/inner'])
def test_a_model_that_holds_itself_is_refused_instead_of_read_for_ever(tmp_path, place):
    path = tmp_path / 'endless.weights.h5'
    with h5py.File(path, 'w') as file:
        file['layers/dense/vars/0'] = np.ones(3)
        file[place] = file['layers']
    with pytest.raises(Error, match='several names'):
        weights.read(path)


INFLATED = zlib.compress(bytes(64 << 20), 9)


def test_models_very_deep_in_each_other_are_refused_before_they_are_read(tmp_path):
    """Every group costs a walk from the top: 1,500 took minutes, and then ended with a RecursionError."""
    with h5py.File(tmp_path / 'numbered.h5', 'w') as file:
        file['layers/x/' * 200 + 'vars/0'] = np.zeros(1, np.float32)
    with h5py.File(tmp_path / 'named.h5', 'w') as file:
        file.attrs['layer_names'] = [b'x']
        file['x/' + 'y/' * 200 + 'kernel'] = np.zeros(1, np.float32)
        file['x'].attrs['weight_names'] = [b'y/' * 200 + b'kernel']
    with h5py.File(tmp_path / 'slashes.h5', 'w') as file:
        file.attrs['layer_names'] = [b'x']
        file['x/y/kernel'] = file['x/y/bias'] = np.zeros(1, np.float32)
        file['x'].attrs['weight_names'] = [b'y/kernel', b'y' + b'/' * 20_000 + b'bias']
    for name in ('numbered.h5', 'named.h5', 'slashes.h5'):
        with pytest.raises(Error, match='deep in each other'):
            weights.read(tmp_path / name)


@pytest.mark.parametrize('options', [
    {'shape': (8,), 'maxshape': (None,), 'chunks': (16 << 20,)},  # As told: whole chunks are read for eight numbers.
    {'shape': (1 << 12,), 'chunks': (1 << 12,)},  # More than told.
])
def test_compressed_chunks_that_would_fill_the_memory_are_refused(tmp_path, options):
    """Three layers, each with a chunk that inflates to 64 MiB."""
    path = tmp_path / 'bomb.weights.h5'
    with h5py.File(path, 'w') as file:
        for number in range(3):
            array = file.create_dataset(f'layers/dense_{number}/vars/0', dtype='f4', compression='gzip', **options)
            array.id.write_direct_chunk((0,), INFLATED)
        file['unused'] = np.zeros(1 << 16)  # Room for what it tells.
    with pytest.raises(Error, match=r'bomb\.weights\.h5 .*save it again without compression'):
        weights.read(path)


def test_other_filters_than_gzip_are_refused_and_gzip_is_read(tmp_path):
    numbers = np.random.default_rng(1).random((40, 30), np.float32)
    for compression in ('gzip', 'lzf'):
        with h5py.File(tmp_path / compression, 'w') as file:
            file.create_dataset('layers/dense/vars/0', data=numbers, chunks=(20, 20), compression=compression)
            file['unused'] = np.zeros(1 << 10)
    np.testing.assert_array_equal(weights.read(tmp_path / 'gzip').layers['dense'][0], numbers)
    with pytest.raises(Error, match=r'lzf holds arrays .* save it again without compression'):
        weights.read(tmp_path / 'lzf')


MALFORMED = {
    'layers is a number': lambda file: file.create_dataset('layers', data=3.0),
    'layers is an array': lambda file: file.create_dataset('layers', data=np.ones(3)),
    'layers is a type': lambda file: file.__setitem__('layers', np.dtype('f4')),
    'a layer is an endless array': lambda file: file.create_dataset('layers/x', (1 << 40,), chunks=(1 << 20,)),
    'vars is an array': lambda file: file.create_dataset('layers/x/vars', data=np.ones(3)),
    'vars is a number': lambda file: file.create_dataset('layers/x/vars', data=3.0),
    'vars is a type': lambda file: file.__setitem__('layers/x/vars', np.dtype('f4')),
    'an array is empty': lambda file: file.create_dataset('layers/x/vars/0', data=h5py.Empty('f4')),
    'layer_names is a number': lambda file: file.attrs.__setitem__('layer_names', 5),
    'layer_names is empty': lambda file: file.attrs.__setitem__('layer_names', h5py.Empty('f4')),
    'weight_names is a number': lambda file: (
        file.attrs.__setitem__('layer_names', [b'a']), file.create_group('a').attrs.__setitem__('weight_names', 3)),
    'weight_names are missing': lambda file: (
        file.attrs.__setitem__('layer_names', [b'a']), file.create_group('a')),
    'names are no text': lambda file: file.attrs.__setitem__('layer_names', [b'\xff']),
    'model_weights is an array': lambda file: file.create_dataset('model_weights', data=np.ones(3)),
}


@pytest.mark.parametrize('what', MALFORMED)
def test_a_malformed_weight_file_is_one_sentence_that_names_it(tmp_path, what):
    path = tmp_path / 'odd.h5'
    with h5py.File(path, 'w') as file:
        MALFORMED[what](file)
    with pytest.raises(Error, match=r'odd\.h5'):
        weights.read(path)


@needs_weights
def test_every_published_file_is_read_compressed_or_not():
    for file in WEIGHTS.glob('*.h5'):
        assert weights.read(file).layers
