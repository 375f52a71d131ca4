"""What MediaPipe's ImageClassifier asks of a LiteRT file: one output, metadata, and the labels inside."""

import io
import zipfile
from collections.abc import Callable, Sequence

import numpy as np

from finetune.console.lazy import LazyModule

flatbuffers = LazyModule('flatbuffers')
schema = LazyModule('tensorflow.lite.python.schema_py_generated')

LABELS = 'labels.txt'
METADATA, METADATA_IDENTIFIER, MODEL_IDENTIFIER = b'TFLITE_METADATA', b'M001', b'TFL3'
WHEN_ZIPPED = (1980, 1, 1, 0, 0, 0)  # The same labels, the same bytes.
RGB, LABELS_OF_AN_AXIS = 1, 2
IMAGE_PROPERTIES, NORMALIZATION = 2, 1  # In their unions.


def with_one_output(model: bytes, name: str) -> bytes:
    """The same without the other outputs, which it would take for other classifiers, and what only they need."""
    content = schema.ModelT.InitFromPackedBuf(model)
    graph, = content.subgraphs
    signature, = content.signatureDefs
    signature.outputs = [output for output in signature.outputs if output.name.decode() == name]
    graph.outputs = [output.tensorIndex for output in signature.outputs]
    needed, kept = set(graph.outputs), []
    for operator in reversed(graph.operators):  # Each comes after what it reads.
        if needed.intersection(operator.outputs):
            needed.update(operator.inputs)
            kept.append(operator)
    graph.operators = kept[::-1]
    read = {graph.tensors[index].buffer for index in {*needed, *graph.inputs} if index >= 0}
    read.update(entry.buffer for entry in content.metadata or ())
    for index, buffer in enumerate(content.buffers):
        if index not in read:
            buffer.data = None
    return _packed(content)


def described(model: bytes, labels: Sequence[str]) -> bytes:
    """The same with metadata, and the labels zipped to its end, where a reader of the model does not look."""
    content = schema.ModelT.InitFromPackedBuf(model)
    takes_float = content.subgraphs[0].tensors[content.subgraphs[0].inputs[0]].type == schema.TensorType.FLOAT32
    buffer, entry = schema.BufferT(), schema.MetadataT()
    buffer.data = np.frombuffer(_metadata(takes_float), np.uint8)
    entry.name, entry.buffer = METADATA, len(content.buffers)
    content.buffers.append(buffer)
    content.metadata = [*(content.metadata or ()), entry]
    file = io.BytesIO(_packed(content))
    with zipfile.ZipFile(file, 'a') as archive:
        archive.writestr(zipfile.ZipInfo(LABELS, WHEN_ZIPPED), ''.join(f'{label}\n' for label in labels))
    return file.getvalue()


def _packed(content) -> bytes:
    builder = flatbuffers.Builder(1 << 20)
    builder.Finish(content.Pack(builder), MODEL_IDENTIFIER)
    return bytes(builder.Output())


# The metadata: tables by the numbers of their fields, as the schema of TensorFlow Lite's metadata has them ------------


def _metadata(takes_float: bool) -> bytes:
    builder = flatbuffers.Builder()

    def table(fields: int, **of_field) -> int:
        """`of_field` has what is stored in a field, by its number as in `_3`: an offset, or (kind, value)."""
        builder.StartObject(fields)
        for number, stored in of_field.items():
            slot = int(number[1:])
            if isinstance(stored, tuple):
                stored[0](builder, slot, stored[1])
            else:
                builder.PrependUOffsetTRelativeSlot(slot, stored, 0)
        return builder.EndObject()

    def vector(offsets: Sequence[int]) -> int:
        builder.StartVector(4, len(offsets), 4)
        for offset in reversed(offsets):
            builder.PrependUOffsetTRelative(offset)
        return builder.EndVector()

    def floats(*values: float) -> int:
        return builder.CreateNumpyVector(np.array(values, np.float32))

    text = builder.CreateString
    image = table(2, _0=_byte(RGB))
    content = table(3, _0=_byte(IMAGE_PROPERTIES), _1=image)
    more = {}
    if takes_float:  # The bytes of a picture become [0, 1].
        options = table(2, _0=floats(0), _1=floats(255))
        more = {'_4': vector([table(2, _0=_byte(NORMALIZATION), _1=options)])}
    stats = table(2, _0=floats(1 if takes_float else 255), _1=floats(0))
    taken = table(7, _0=text('image'), _1=text('What the network sees: upright, RGB.'), _3=content, _5=stats, **more)
    file = table(5, _0=text(LABELS), _1=text('The labels, in the order of the probabilities.'),
                 _2=_byte(LABELS_OF_AN_AXIS))
    properties = table(3, _0=_byte(1), _1=table(0))
    given = table(7, _0=text('probabilities'), _1=text('Of each label.'), _3=properties,
                  _5=table(2, _0=floats(1), _1=floats(0)), _6=vector([file]))
    graph = table(9, _2=vector([taken]), _3=vector([given]))
    model = table(8, _0=text('classifier'), _3=vector([graph]), _7=text('1.0.0'))
    builder.Finish(model, METADATA_IDENTIFIER)
    return bytes(builder.Output())


def _byte(value: int) -> tuple[Callable, int]:
    return lambda builder, slot, stored: builder.PrependUint8Slot(slot, stored, 0), value
