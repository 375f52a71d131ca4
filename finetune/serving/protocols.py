"""What programs send and get in JSON: TensorFlow Serving's predict, and version 2 of KServe's inference protocol."""

import base64
import binascii
import json
from collections.abc import Sequence

from finetune.serving.desk import Told
from finetune.serving.guards import Refused
from finetune.serving.served import Served

MOST_PICTURES = 32  # Of one request.
MOST_PARTS = 10_000  # Commas and brackets: far more than so many pictures have, and few enough to be parsed.


def parsed(body: bytes) -> dict:
    """Raises Refused."""
    if sum(map(body.count, (b',', b'[', b'{'))) > MOST_PARTS:  # Base64 has none of them.
        raise _wrong(f'it has more than {MOST_PARTS} parts')
    try:
        found = json.loads(body)
    except RecursionError:
        raise _wrong('it is too deep') from None
    except ValueError:
        raise _wrong('it is no JSON') from None
    if not isinstance(found, dict):
        raise _wrong('it is no object')
    return found


def _wrong(what: str) -> Refused:
    return Refused(400, 'bad_request', f'The body is not what this address takes: {what}.')


def _decoded(texts: Sequence, most_bytes: int) -> list[bytes]:
    if not 0 < len(texts) <= MOST_PICTURES:
        raise _wrong(f'it has {len(texts)} pictures, and 1 to {MOST_PICTURES} are taken')
    if not all(isinstance(text, str) for text in texts):
        raise _wrong('a picture is a file in base64')
    try:
        pictures = [base64.b64decode(text, validate=True) for text in texts]
    except (binascii.Error, ValueError):
        raise _wrong('a picture is a file in base64, and one is not') from None
    if any(len(picture) > most_bytes for picture in pictures):
        raise Refused(413, 'too_large', f'A picture has more than {most_bytes} bytes.')
    return pictures


def _answered(all_told: Sequence[Told]) -> None:
    """Raises Refused for the first picture without an answer, as both protocols have no place for it."""
    for number, told in enumerate(all_told):
        if told.answer.rejected:
            raise Refused(422, told.answer.rejected.reason, f'Picture {number}: {told.answer.rejected.detail}')


# TensorFlow Serving ---------------------------------------------------------------------------------------------------


def of_tensorflow(body: bytes, most_bytes: int) -> tuple[list[bytes], bool]:
    """The pictures, and whether they came as rows ("instances") and not as a column ("inputs")."""
    found = parsed(body)
    as_rows = 'instances' in found
    given = found.get('instances') if as_rows else found.get('inputs')
    if isinstance(given, dict):
        given = given.get('files', given)
    given = given if isinstance(given, list) else [given]
    return _decoded([_base64_of(each) for each in given], most_bytes), as_rows


def _base64_of(instance):
    while isinstance(instance, dict):
        instance = instance.get('b64', instance.get('files'))
    return instance


def for_tensorflow(all_told: Sequence[Told], as_rows: bool) -> dict:
    """The outputs have the names that the exported SavedModel gives them."""
    _answered(all_told)
    rows = [_outputs(told) for told in all_told]
    return {'predictions': rows} if as_rows else {'outputs': {name: [row[name] for row in rows] for name in rows[0]}}


def _outputs(told: Told) -> dict:
    labels, likely = zip(*told.answer.top, strict=True)
    outputs = {'labels': labels, 'probabilities': likely}
    if told.answer.familiarity is not None:
        outputs |= {'familiarity': told.answer.familiarity, 'unknown': told.answer.is_unknown}
    return outputs


def status(served: Served) -> dict:
    return {'model_version_status': [{'version': served.version, 'state': 'AVAILABLE',
                                      'status': {'error_code': 'OK', 'error_message': ''}}]}


# KServe ---------------------------------------------------------------------------------------------------------------


KINDS = {'labels': 'BYTES', 'probabilities': 'FP32', 'familiarity': 'FP32', 'unknown': 'BOOL'}


def metadata(served: Served) -> dict:
    count, names = len(served.labels), list(KINDS)[:None if served.can_abstain else 2]
    return {
        'name': served.name, 'versions': [served.version], 'platform': 'finetune',
        'inputs': [{'name': 'files', 'datatype': 'BYTES', 'shape': [-1]}],
        'outputs': [{'name': name, 'datatype': KINDS[name], 'shape': [-1, count] if name in ('labels', 'probabilities')
                     else [-1]} for name in names],
        'parameters': {'labels': served.labels, 'can_explain': served.can_explain, 'can_abstain': served.can_abstain}}


def of_kserve(body: bytes, most_bytes: int) -> tuple[list[bytes], dict]:
    """The pictures, and the request without them."""
    found = parsed(body)
    inputs = found.pop('inputs', None)
    if not isinstance(inputs, list) or len(inputs) != 1 or not isinstance(inputs[0], dict):
        raise _wrong('one input is expected, of files in base64')
    data = inputs[0].get('data')
    if inputs[0].get('datatype') != 'BYTES' or not isinstance(data, list):
        raise _wrong('the input is of datatype BYTES, with data in the JSON')
    flat = [part for each in data for part in (each if isinstance(each, list) else [each])]
    pictures = _decoded(flat, most_bytes)
    if inputs[0].get('shape') not in ([len(pictures)], [len(pictures), 1]):
        raise _wrong(f'its shape is not [{len(pictures)}], as many as there are')
    return pictures, found


def for_kserve(all_told: Sequence[Told], request: dict, served: Served) -> dict:
    _answered(all_told)
    rows = [_outputs(told) for told in all_told]
    asked = request.get('outputs')
    names = list(rows[0]) if asked is None else [each.get('name') if isinstance(each, dict) else None for each in asked]
    if not set(map(str, names)) <= set(rows[0]):
        raise _wrong(f'its outputs are {", ".join(rows[0])}')
    outputs = []
    for name in names:
        values = [row[name] for row in rows]
        shape = [len(values), *([len(values[0])] if isinstance(values[0], tuple) else [])]
        flat = [part for value in values for part in (value if isinstance(value, tuple) else [value])]
        outputs.append({'name': name, 'datatype': KINDS[name], 'shape': shape, 'data': flat})
    named = {'id': request['id']} if isinstance(request.get('id'), str) else {}
    return {**named, 'model_name': served.name, 'model_version': served.version, 'outputs': outputs}
