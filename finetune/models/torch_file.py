"""Tensors out of a PyTorch file of the older kind: a pickle of names and shapes, and behind it the numbers.

A pickle is a program. Here it is read word by word (`pickletools` splits it and runs nothing) by a machine that knows
the few words in which tensors are told. It has nothing to import and nothing to call: what looks like the name of a
function is compared with four names, and what is made of it is a dict, a `Storage` or a `Tensor`.
"""

import hashlib
import io
import math
import pickletools
from pathlib import Path
from typing import NamedTuple

import numpy as np

from finetune.console.errors import Error
from finetune.console.terminal import printable

MOST_BYTES = 64 * 2**20  # The largest that we know has 24 MB.
MOST_WORDS = 100_000  # Of one pickle. That of the largest has 10,000.
MOST_AXES = 8
MAGIC, PROTOCOL = 0x1950A86A20F9469CFC6C, 1001
DICT, TENSOR = 'collections OrderedDict', 'torch._utils _rebuild_tensor_v2'
NUMBERS = {'torch FloatStorage': np.dtype('<f4'), 'torch LongStorage': np.dtype('<i8')}
MARK = object()


class Storage(NamedTuple):
    """Numbers that stand behind the pickle."""

    dtype: np.dtype
    key: str
    count: int


class Tensor(NamedTuple):
    """A part of a storage."""

    storage: Storage
    start: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def read(path: Path, sha256: str) -> dict[str, np.ndarray]:
    """Arrays by name. Raises `Error` where the file is not the one with this checksum, or holds more than tensors."""
    shown = printable(path)
    if not path.is_file() or path.stat().st_size > MOST_BYTES:
        raise Error(f'{shown} is missing, no plain file, or larger than {MOST_BYTES} bytes. '
                    'Install its package again.')
    content = path.read_bytes()
    if hashlib.sha256(content).hexdigest() != sha256:
        raise Error(f'{shown}: its sha256 is not that of the file that is known here: it was damaged or changed. '
                    'Install its package again.')
    try:
        return tensors(content)
    except (ValueError, TypeError, LookupError, AttributeError, OverflowError) as error:
        raise Error(f'{shown} cannot be read as a file of tensors ({printable(str(error))[:200]}).') from None


def tensors(content: bytes) -> dict[str, np.ndarray]:
    """Arrays by name, which share the memory of `content`. Raises one of the errors that `read` catches."""
    file = io.BytesIO(content)
    if [_unpickled(file), _unpickled(file)] != [MAGIC, PROTOCOL] or _unpickled(file).get('little_endian') is not True:
        raise ValueError('it does not begin as PyTorch began its files before version 1.6')
    told, keys = _unpickled(file), [_checked(key, str) for key in _unpickled(file)]
    kinds = {tensor.storage.key: tensor.storage for tensor in told.values()}
    if sorted(kinds) != sorted(keys):
        raise ValueError('its tensors are not those whose numbers stand in the file')
    start, numbers = file.tell(), {}
    for storage in (kinds[key] for key in keys):
        if int(np.frombuffer(content, '<i8', 1, start)[0]) != storage.count:
            raise ValueError('its numbers are not as many as its tensors need')
        numbers[storage.key] = np.frombuffer(content, storage.dtype, storage.count, start + 8)
        start += 8 + numbers[storage.key].nbytes
    if start != len(content):
        raise ValueError('there is more in it than its tensors')
    return {name: _array(tensor, numbers[tensor.storage.key]) for name, tensor in told.items()}


def _array(tensor: Tensor, numbers: np.ndarray) -> np.ndarray:
    """NumPy refuses what would reach beyond the numbers; we, what would repeat them to fill the memory."""
    _, start, shape, strides = tensor
    if math.prod(shape) > len(numbers):
        raise ValueError('a tensor of it has more numbers than there are')
    width = numbers.itemsize
    return np.ndarray(shape, numbers.dtype, numbers, start * width, tuple(stride * width for stride in strides))


def _unpickled(file: io.BytesIO):
    """The value of the pickle that begins here."""
    stack, memo = [], {}
    for number, (word, argument, _) in enumerate(pickletools.genops(file)):
        if number > MOST_WORDS:
            raise ValueError(f'more than {MOST_WORDS} words tell its tensors')
        match word.name:
            case 'PROTO':
                pass
            case 'STOP':
                return stack.pop()
            case 'MARK':
                stack.append(MARK)
            case 'NONE' | 'NEWTRUE' | 'NEWFALSE':
                stack.append({'NONE': None, 'NEWTRUE': True, 'NEWFALSE': False}[word.name])
            case 'BININT' | 'BININT1' | 'BININT2' | 'LONG1' | 'BINUNICODE':
                stack.append(argument)
            case 'BINPUT' | 'LONG_BINPUT':
                memo[argument] = stack[-1]
            case 'BINGET' | 'LONG_BINGET':
                stack.append(memo[argument])
            case 'EMPTY_DICT':
                stack.append({})
            case 'EMPTY_LIST':
                stack.append([])
            case 'EMPTY_TUPLE':
                stack.append(())
            case 'TUPLE1' | 'TUPLE2' | 'TUPLE3':
                stack.append(tuple(_last(stack, int(word.name[-1]))))
            case 'TUPLE':
                stack.append(tuple(_since_mark(stack)))
            case 'APPENDS':
                values = _since_mark(stack)
                _checked(stack[-1], list).extend(values)
            case 'SETITEM':
                _set_items(stack, _last(stack, 2))
            case 'SETITEMS':
                _set_items(stack, _since_mark(stack))
            case 'BUILD':
                stack.pop()  # What PyTorch notes of its modules, beside the dict.
            case 'GLOBAL':
                if argument not in (DICT, TENSOR, *NUMBERS):
                    raise ValueError(f'it asks for {argument}, which is no tensor')
                stack.append(argument)
            case 'BINPERSID':
                stack.append(_storage(*stack.pop()))
            case 'REDUCE':
                stack.append(_made(*_last(stack, 2)))
            case _:
                raise ValueError(f'its pickle has the word {word.name}, which no tensor needs')
    raise ValueError('it ends before its tensors do')


def _last(stack: list, count: int) -> list:
    return [stack.pop() for _ in range(count)][::-1]


def _since_mark(stack: list) -> list:
    values = []
    while (value := stack.pop()) is not MARK:
        values.append(value)
    return values[::-1]


def _set_items(stack: list, pairs: list) -> None:
    """Names alone are keys: to hash other values may take for ever."""
    names = [_checked(name, str) for name in pairs[::2]]
    _checked(stack[-1], dict).update(zip(names, pairs[1::2], strict=True))


def _storage(kind, of, key, place, count, view) -> Storage:
    if kind != 'storage' or view is not None:
        raise ValueError('it names numbers in a way that is not known')
    return Storage(NUMBERS[_checked(of, str)], _checked(key, str), _length(count))


def _made(function, arguments):
    """What the file would have a function make."""
    if function == DICT and arguments == ():
        return {}
    if function != TENSOR:
        raise ValueError('it calls what makes no tensor')
    storage, start, shape, strides, _needs_gradient, _hooks = arguments
    return Tensor(_checked(storage, Storage), _length(start), _lengths(shape), _lengths(strides))


def _lengths(values) -> tuple[int, ...]:
    if len(_checked(values, tuple)) > MOST_AXES:
        raise ValueError(f'a tensor of it has more than {MOST_AXES} axes')
    return tuple(map(_length, values))


def _length(value) -> int:
    if _checked(value, int) < 0:
        raise ValueError('a length in it is below zero')
    return value


def _checked(value, kind: type):
    if type(value) is not kind:
        raise ValueError(f'it has {type(value).__name__} where a file of tensors has {kind.__name__}')
    return value
