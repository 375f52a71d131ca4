"""Files and runs that mean harm, and how to write them. Nothing here is ever read but as --pretrained."""

import contextlib
import io
import json
import os
import pickle
import socket
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path

import h5py
import numpy as np

from finetune.console.lazy import keras
from tests import toy_run

SECRET = np.full(8, 42.0, np.float32)  # Of the size of the first bias of the toy network, so that it would fit.


# ---- programs ----


class _Touches:
    def __init__(self, canary: Path):
        self.canary = canary

    def __reduce__(self):
        return os.system, (f'touch {self.canary}',)


def _pickle(path: Path, canary: Path) -> None:
    path.write_bytes(pickle.dumps(_Touches(canary)))


def _torch(path: Path, canary: Path) -> None:
    with zipfile.ZipFile(path, 'w') as archive:
        archive.writestr('archive/data.pkl', pickle.dumps(_Touches(canary)))


def _numpy(path: Path, canary: Path) -> None:
    """Pickles are allowed here, where one is written; a reader that allows them runs it."""
    with path.open('wb') as file:
        np.save(file, np.array([_Touches(canary)], object), allow_pickle=True)


def _with_a_program(canary: Path):
    inputs = keras.Input((4,))
    touch = keras.layers.Lambda(lambda x, file=str(canary): [open(file, 'w').close(), x][1])  # noqa: PTH123
    return keras.Model(inputs, touch(keras.layers.Dense(3)(inputs)))


def _keras(path: Path, canary: Path) -> None:
    _with_a_program(canary).save(path.with_suffix('.keras'))
    path.with_suffix('.keras').rename(path)
    canary.unlink(missing_ok=True)


def _legacy_model(path: Path, canary: Path) -> None:
    _with_a_program(canary).save(path)
    canary.unlink(missing_ok=True)


def _saved_model(path: Path, canary: Path) -> None:
    path.mkdir()
    (path / 'saved_model.pb').write_bytes(b'\x08\x01\x12\x0a')
    (path / 'variables').mkdir()


# ---- HDF5 that leads elsewhere ----


def _layer(file: h5py.File) -> h5py.Group:
    return file.require_group('layers/conv2d/vars')


def _hdf5(fill: Callable[[h5py.File, Path], None]) -> Callable[[Path, Path], None]:
    def write(path: Path, canary: Path) -> None:
        with h5py.File(path, 'w') as file:
            fill(file, path.parent.parent / 'secret.h5')

    return write


def _external_layer(file, secret):
    file.create_group('layers')['conv2d'] = h5py.ExternalLink(str(secret), '/')


def _external_array(file, secret):
    _layer(file)['0'] = h5py.ExternalLink(str(secret), '/x')


def _external_root(file, secret):
    file['layers'] = h5py.ExternalLink(str(secret), '/')


def _soft_link(file, secret):
    file['hidden'] = SECRET
    _layer(file)['0'] = h5py.SoftLink('/hidden')


def _virtual(file, secret):
    layout = h5py.VirtualLayout((8,), np.float32)
    layout[:] = h5py.VirtualSource(str(secret), 'x', (8,))
    _layer(file).create_virtual_dataset('0', layout)


def _external_storage(file, secret):
    _layer(file).create_dataset('0', (8,), np.float32, external=[('/etc/passwd', 0, 32)])


def _loop(file, secret):
    _layer(file)['0'] = file


def _names_of_elsewhere(file, secret):
    file.attrs['layer_names'] = [b'../../../etc/passwd', b'/etc/passwd']


# ---- HDF5 that takes too much ----


def _four_tebibytes(file, secret):
    _layer(file).create_dataset('0', (1 << 40,), np.float32, chunks=(1 << 20,))


def _many_of_four_gibibytes(file, secret):
    for number in range(50):
        _layer(file).create_dataset(str(number), ((1 << 30) - 1,), np.float32, chunks=(1 << 20,))


def _deflated_zeros(file, secret):
    _layer(file).create_dataset('0', data=np.zeros(1 << 28, np.float32), chunks=(1 << 22,), compression='gzip')


def _one_array_by_many_names(file, secret):
    file['big'] = np.ones(1 << 22, np.float32)
    for number in range(300):
        _layer(file)[str(number)] = file['big']


def _never_written(file, secret):
    """Room that the file claims and does not have, as its space is allotted late."""
    space = h5py.h5s.create_simple((1 << 29,))
    late = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    late.set_alloc_time(h5py.h5d.ALLOC_TIME_LATE)
    h5py.h5d.create(_layer(file).id, b'0', h5py.h5t.NATIVE_FLOAT, space, late)


def _many_empty_layers(file, secret):
    layers = file.create_group('layers')
    for number in range(1000):
        layers.create_group(f'conv2d_{number}')


def _by_twelve_names(file, compressed: bytes, **chunks) -> None:
    array = _layer(file).create_dataset('0', dtype=np.float32, compression='gzip', **chunks)
    array.id.write_direct_chunk((0,), compressed)
    for number in range(1, 12):
        _layer(file)[str(number)] = array


def _huge_chunks_of_small_arrays(file, secret):
    _by_twelve_names(file, zlib.compress(bytes(1 << 29)), shape=(8,), maxshape=(None,), chunks=(1 << 27,))


def _chunks_that_hold_more_than_they_tell(file, secret):
    _by_twelve_names(file, zlib.compress(bytes(1 << 30)), shape=(1 << 12,), chunks=(1 << 12,))


def _a_layer_that_is_an_endless_array(file, secret):
    file.create_dataset('layers/conv2d', (1 << 40,), np.float32, chunks=(1 << 20,))


# ---- HDF5 that holds no numbers ----


def _texts(file, secret):
    _layer(file).create_dataset('0', data=['a text', 'another'], dtype=h5py.string_dtype())


def _references(file, secret):
    file['x'] = SECRET
    _layer(file).create_dataset('0', data=[file['x'].ref], dtype=h5py.ref_dtype)


def _ragged(file, secret):
    data = _layer(file).create_dataset('0', (2,), h5py.vlen_dtype(np.float32))
    data[0] = SECRET


def _records(file, secret):
    _layer(file)['0'] = np.zeros(3, [('a', 'f4'), ('b', 'S9')])


def _not_a_number(file, secret):
    _layer(file)['0'] = np.full((3, 3, 3, 8), np.nan, np.float32)


def _a_group_for_an_array(file, secret):
    _layer(file).create_group('0')


# ---- archives and files that are none ----


def _zip_slip(path: Path, canary: Path) -> None:
    with zipfile.ZipFile(path, 'w') as archive:
        archive.writestr('../../canary', 'out')
        archive.writestr('model.weights.h5', b'\x89HDF\r\n\x1a\n')


def _tar_slip(path: Path, canary: Path) -> None:
    with tarfile.open(path, 'w:gz') as archive:
        for name in ('../../canary', str(canary)):
            archive.addfile(tarfile.TarInfo(name), io.BytesIO(b''))


def _link_to(target: str) -> Callable[[Path, Path], None]:
    return lambda path, canary: path.symlink_to(target)


def _socket(path: Path, canary: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener, contextlib.chdir(path.parent):
        listener.bind(path.name)


def _sparse(path: Path, canary: Path) -> None:
    with path.open('wb') as file:
        file.write(b'\x89HDF\r\n\x1a\n')
        file.truncate(8 << 30)


def _cut_short(path: Path, canary: Path) -> None:
    _hdf5(_not_a_number)(path, canary)
    path.write_bytes(path.read_bytes()[:3000])


# ---- what stands beside a file ----


def _with_checksum(make: Callable[[Path], None]) -> Callable[[Path, Path], None]:
    def write(path: Path, canary: Path) -> None:
        _hdf5(_not_a_number)(path, canary)
        make(path.with_name(path.name + '.sha256'))

    return write


# ---- runs ----


def _run(make: Callable[[Path], None]) -> Callable[[Path, Path], None]:
    def write(path: Path, canary: Path) -> None:
        path.mkdir()
        make(path)

    return write


def _recipe(content) -> Callable[[Path, Path], None]:
    return _run(lambda path: (path / 'recipe.json').write_text(content if isinstance(content, str) else
                                                               json.dumps(content)))


def _run_with(damage: Callable[[Path], None]) -> Callable[[Path, Path], None]:
    def write(path: Path, canary: Path) -> None:
        toy_run.save_checkpoint(toy_run.start_run(path), step=3)
        damage(path)

    return write


def _data_from_zero(path: Path) -> None:
    data = path / 'ckpt-3.data-00000-of-00001'
    data.unlink()
    data.symlink_to('/dev/zero')


FILES = {
    'a pickle': _pickle, 'a zip of pickles': _torch, 'a NumPy file of objects': _numpy, 'keras with a program': _keras,
    'a whole model with a program': _legacy_model, 'a SavedModel': _saved_model,
    **{fill.__name__.strip('_').replace('_', ' '): _hdf5(fill) for fill in (
        _external_layer, _external_array, _external_root, _soft_link, _virtual, _external_storage, _loop,
        _names_of_elsewhere, _four_tebibytes, _many_of_four_gibibytes, _deflated_zeros, _one_array_by_many_names,
        _never_written, _many_empty_layers, _huge_chunks_of_small_arrays, _chunks_that_hold_more_than_they_tell,
        _a_layer_that_is_an_endless_array, _texts, _references, _ragged, _records, _not_a_number,
        _a_group_for_an_array)},
    'zip slip': _zip_slip, 'tar slip': _tar_slip, 'a link to zero': _link_to('/dev/zero'),
    'a link to random': _link_to('/dev/urandom'), 'a link to nothing': _link_to('nothing'),
    'a link to itself': _link_to('weights.h5'), 'a link to a folder': _link_to('/etc'),
    'a FIFO': lambda path, canary: os.mkfifo(path),
    'a socket': _socket, 'eight GiB of nothing': _sparse, 'an empty file': lambda path, canary: path.touch(),
    'cut short': _cut_short, 'a checksum from a FIFO': _with_checksum(os.mkfifo),
    'a checksum from zero': _with_checksum(lambda path: path.symlink_to('/dev/zero')),
    'a checksum that is no text': _with_checksum(lambda path: path.write_bytes(bytes(range(256)))),
    'a run from a FIFO': _run(lambda path: os.mkfifo(path / 'recipe.json')),
    'a run from zero': _run(lambda path: (path / 'recipe.json').symlink_to('/dev/zero')),
    'a run of brackets': _recipe('[' * 200_000), 'a run that is a list': _recipe([]), 'a run of nothing': _recipe({}),
    'a run of no network': _recipe({'labels': ['background', 'a'], 'recipe': {'model': 'os.system'}}),
    'a run without an index': _run_with(lambda path: (path / 'ckpt-3.index').write_bytes(b'noise')),
    'a run whose data is zero': _run_with(_data_from_zero),
}

SAID = {  # Of what leads out of the file, and of nothing that lies there.
    **dict.fromkeys(('external layer', 'external array', 'external root', 'soft link', 'names of elsewhere'),
                    'is missing or a link to somewhere else'),
    **dict.fromkeys(('virtual', 'external storage', 'loop'), 'is not a plain array of numbers'),
    **dict.fromkeys(('huge chunks of small arrays', 'chunks that hold more than they tell'), 'without compression'),
}


# ---- what the reader of PyTorch's older files is given: `torch_file` ----

TORCH_KINDS = {'f': 'torch FloatStorage', 'i': 'torch LongStorage'}


def torch_file(arrays: Mapping[str, np.ndarray]) -> bytes:
    """As PyTorch wrote tensors before version 1.6, whatever the order that their numbers lie in."""
    flat = {name: np.lib.stride_tricks.as_strided(array, (array.size,), (array.itemsize,))
            for name, array in arrays.items()}
    told = {name: _tensor(
        _stored(name, array.size, TORCH_KINDS[array.dtype.kind]), array.shape,
        tuple(stride // array.itemsize for stride in array.strides)) for name, array in arrays.items()}
    return _torch_file(told, {name: struct.pack('<q', array.size) + array.tobytes() for name, array in flat.items()})


def _torch_file(told: Mapping[str, bytes], behind: Mapping[str, bytes], keys: bytes = b'') -> bytes:
    """`told` are the words that make each tensor, `behind` the numbers by key, `keys` the words of another list."""
    pairs = b''.join(_text(name) + words for name, words in told.items())
    listed = keys or b'](' + b''.join(map(_text, behind)) + b'e'
    header = map(_pickled, (
        _number(0x1950A86A20F9469CFC6C), _number(1001), b'}(' + _text('little_endian') + b'\x88u'))
    return b''.join((*header, _pickled(b'}(' + pairs + b'u'), _pickled(listed), *behind.values()))


def _pickled(words: bytes) -> bytes:
    return b'\x80\x02' + words + b'.'


def _text(text: str) -> bytes:
    return b'X' + struct.pack('<I', len(text.encode())) + text.encode()


def _number(number: int) -> bytes:
    length = number.bit_length() // 8 + 1
    return b'\x8a' + bytes([length]) + number.to_bytes(length, 'little', signed=True)


def _tuple(*words: bytes) -> bytes:
    return b'(' + b''.join(words) + b't'


def _global(name: str) -> bytes:
    return b'c' + name.replace(' ', '\n').encode() + b'\n'


def _stored(key: str = 'x', count: int = 8, kind: str = 'torch FloatStorage') -> bytes:
    return _tuple(_text('storage'), _global(kind), _text(key), _text('cpu'), _number(count), b'N') + b'Q'


def _tensor(storage: bytes, shape: tuple = (8,), strides: tuple = (1,), start: int = 0) -> bytes:
    return _global('torch._utils _rebuild_tensor_v2') + _tuple(
        storage, _number(start), _tuple(*map(_number, shape)), _tuple(*map(_number, strides)), b'\x89',
        _global('collections OrderedDict') + b')R') + b'R'


EIGHT = struct.pack('<q', 8) + SECRET.tobytes()


def _tells(words: bytes = _tensor(_stored()), behind: bytes = EIGHT, keys: bytes = b'') -> Callable[[Path, Path], None]:
    """A file that is right but for what is given."""
    return lambda path, canary: path.write_bytes(_torch_file({'a': words}, {'x': behind}, keys))


def _runs(protocol: int) -> Callable[[Path, Path], None]:
    """A program where a tensor is expected."""
    def write(path: Path, canary: Path) -> None:
        program = pickle.dumps(_Touches(canary), protocol)
        path.write_bytes(_torch_file({'a': program[2:-1]}, {'x': EIGHT}))

    return write


def _runs_in_old_words(path: Path, canary: Path) -> None:
    path.write_bytes(_torch_file({'a': b'(' + _text(f'touch {canary}') + b'iposix\nsystem\n'}, {'x': EIGHT}))


def _zip_of(write: Callable[[zipfile.ZipFile], None]) -> Callable[[Path, Path], None]:
    def fill(path: Path, canary: Path) -> None:
        with zipfile.ZipFile(path, 'w', zipfile.ZIP_DEFLATED) as archive:
            write(archive)

    return fill


def _bomb(archive: zipfile.ZipFile) -> None:
    archive.writestr('archive/data.pkl', _pickled(b'}'))
    with archive.open('archive/data/0', 'w') as entry:
        for _ in range(256):
            entry.write(bytes(1 << 20))


def _doubled(times: int) -> bytes:
    """A tuple of itself twice, and so on: few words, of which comparing two takes for ever."""
    return b'N' + b''.join(b'q\x00h\x00\x86' for _ in range(times))


TORCH = {
    'a program for a tensor': _runs(2), 'a program in new words': _runs(4),
    'a program in old words': _runs_in_old_words,
    'a program for numbers': _tells(_tensor(_stored(kind='posix system'))),
    'a call of a kind of numbers': _tells(_global('torch FloatStorage') + b')R'),
    'a class made without a call': _tells(_global('collections OrderedDict') + b')\x81'),
    'a zip of a program': _torch, 'a zip that is a bomb': _zip_of(_bomb),
    'a zip that leads elsewhere': _zip_of(lambda archive: archive.writestr('../../canary', 'out')),
    'more numbers claimed than there are': _tells(_tensor(_stored(count=1 << 40)), struct.pack('<q', 1 << 40)),
    'fewer numbers told than stand there': _tells(behind=struct.pack('<q', 7) + SECRET.tobytes()),
    'less than no numbers': _tells(_tensor(_stored(count=-1)), struct.pack('<q', -1) + SECRET.tobytes()),
    'a tensor that begins behind its numbers': _tells(_tensor(_stored(), start=1)),
    'a tensor that begins before them': _tells(_tensor(_stored(), start=-1)),
    'a tensor that steps out of its numbers': _tells(_tensor(_stored(), strides=(2,))),
    'a tensor that steps back': _tells(_tensor(_stored(), strides=(-1,), start=7)),
    'one number a tebibyte': _tells(_tensor(_stored(), shape=(1 << 20, 1 << 20), strides=(0, 0))),
    'a shape of many axes': _tells(_tensor(_stored(), shape=(1 << 2000,) * 40_000, strides=(0,) * 40_000)),
    'a shape of other lengths': _tells(_tensor(_stored(), shape=(2, 4))),
    'numbers behind the last': _tells(behind=EIGHT + bytes(64)),
    'numbers of no tensor': lambda path, canary: path.write_bytes(
        _torch_file({'a': _tensor(_stored())}, {'x': EIGHT, 'y': EIGHT})),
    'no tensors but a list': _tells(b']'), 'a name that is none': _tells(b'N' + _doubled(40) + b'N'),
    'keys that take for ever': _tells(keys=b'](' + _doubled(60) + _doubled(60) + b'e'),
    'many million marks': _tells(b'(' * 20_000_000), 'a number without end': _tells(b'L' + b'9' * 1_000_000 + b'L\n.'),
    'a word that takes what is not there': _tells(b'u' * 9),
    'no file but a FIFO': lambda path, canary: os.mkfifo(path),
    'no file but zero': _link_to('/dev/zero'), 'no file but a folder': lambda path, canary: path.mkdir(),
    'no file but a hole': _sparse,
}
