"""The formats that a run is exported to, in the order of their usefulness."""

import dataclasses
import importlib.util
from collections.abc import Callable, Sequence
from pathlib import Path

from finetune.console.errors import UsageError
from finetune.console.terminal import printable
from finetune.exporting import litert, onnx, openvino, savedmodel

OF_WHO_KNOWS = 'familiarity', 'unknown'  # Outputs where a run knows what its pictures look like.
CLIENTS = Path(__file__).parent / 'clients'


@dataclasses.dataclass(frozen=True)
class Format:
    write: Callable  # (network, the export's directory), which has a folder of the format's name.
    inputs: dict[str, str]  # What goes in, by name,
    outputs: dict[str, str]  # and what comes out beside or otherwise than what all formats give.
    needs: tuple[str, ...]  # The modules that write and read it.
    reads_by: tuple[str, ...]  # Those that its client imports.
    about: str  # What one should know of it.
    lacks: tuple[str, ...] = ()  # Of what all formats give.


FOR_PHONES = (
    'For phones and small machines; once TensorFlow Lite. It takes the picture as the network sees it: whoever calls '
    'it crops and resizes, as below (`crop_fraction` and `image_size` stand in `model.json`).')
MEDIAPIPE = (
    'its ImageClassifier opens it as it is. It looks at the whole picture: give it the central part as '
    '`region_of_interest`.')
PIXELS = 'uint8 [n, height, width, 3], upright, RGB, of any size; cropped and resized inside'
FORMATS = {
    'savedmodel': Format(
        savedmodel.write,
        {'files': 'string [n]: JPEG, PNG or GIF files, of any sizes; cropped and resized inside; of signature '
                  '`serving_default`',
         'pixels': f'{PIXELS}; of signature `serving_pixels`'},
        {'labels': 'string [n, labels], the most probable first',
         'probabilities': 'float32 [n, labels], of these, after the temperature'},
        ('tensorflow',), ('tensorflow',),
        'For TensorFlow, and TensorFlow Serving with `savedmodel` as the directory of the model. Files are decoded, '
        'turned upright (EXIF) and put on white where they are transparent inside the graph. It knows no WebP, '
        'BMP, TIFF or HEIC, and no colour profiles; one file that it cannot read makes the whole batch an error. '
        '`labels` and `probabilities` come with the most probable first.'),
    'openvino': Format(
        openvino.write, {'pixels': PIXELS}, {}, ('openvino',), ('openvino', 'PIL.ImageOps'),
        'For CPUs, without TensorFlow. **Compile it with `INFERENCE_PRECISION_HINT` f32**, as below: CPUs that have '
        'bfloat16 use it by themselves, and then the answers are others, and worse.'),
    'litert': Format(
        litert.write,
        {'image': 'float32 [1, image_size, image_size, 3] in [0, 1]: upright, RGB, the central part, resized as '
                  'README.md does it'},
        {}, ('ai_edge_litert',), ('ai_edge_litert.interpreter', 'PIL.ImageOps'),
        f'{FOR_PHONES} **For MediaPipe** there is `mediapipe.tflite` with `probabilities` alone, and the labels '
        f'inside: {MEDIAPIPE}'),
    'onnx': Format(
        onnx.write, {'pixels': PIXELS}, {}, ('tf2onnx', 'onnx', 'onnxruntime'), ('onnxruntime', 'PIL.ImageOps'),
        f'For the many programs that read ONNX (opset {onnx.OPSET}), ONNX Runtime first.'),
}
# What there is in each precision.
PRECISIONS = {
    'float32': FORMATS,
    'float16': {
        'openvino': dataclasses.replace(FORMATS['openvino'], write=openvino.write_float16),
        'litert': dataclasses.replace(FORMATS['litert'], write=litert.write_float16),
    },
    'int8': {
        'litert': dataclasses.replace(
            FORMATS['litert'],
            write=litert.write_int8,
            inputs={'image': 'uint8 [1, image_size, image_size, 3]: upright, RGB, the central part, resized as '
                             'README.md does it'},
            outputs={'probabilities': 'uint8 [n, labels], 256ths, in the order of the labels, after the temperature'},
            lacks=('logits', 'evidence', *OF_WHO_KNOWS),
            about=f'{FOR_PHONES} It computes with numbers of 8 bits, is faster and smaller for it, answers some '
                  'pictures otherwise than the run does, and never says `unknown`. The labels are in it, **MediaPipe** '
                  f'knows it: {MEDIAPIPE}'),
    },
}


def named(text: str, precision: str) -> list[str]:
    """'savedmodel,openvino' -> the formats, each once; a UsageError for what is none or cannot be made here."""
    names = list(dict.fromkeys(part.strip() for part in text.split(',') if part.strip()))
    unknown = [name for name in names if name not in FORMATS]
    if unknown or not names:
        raise UsageError(f'--format={printable(text)} is not understood: expected one or several of '
                         f'{",".join(FORMATS)}')
    others = [name for name in names if name not in PRECISIONS[precision]]
    if others:
        together = '; '.join(f'{each}: {",".join(given)}' for each, given in PRECISIONS.items())
        raise UsageError(f'--precision={precision} is not for {",".join(others)}. What goes together: {together}')
    missing = [module for name in names for module in FORMATS[name].needs if importlib.util.find_spec(module) is None]
    if missing:
        raise UsageError(f'--format={",".join(names)} needs what is not installed: '
                         f'pip install {" ".join(missing).replace("_", "-")}')
    return names


def client(name: str) -> str:
    """The code that answers pictures with this format; it needs nothing of this project."""
    return (CLIENTS / f'{name}.py').read_text()


def files(name: str, directory: Path) -> Sequence[Path]:
    return sorted(path for path in (directory / name).rglob('*') if path.is_file())


def size(name: str, directory: Path) -> int:
    """The bytes of what answers; the copy for MediaPipe is instead of it."""
    return sum(path.stat().st_size for path in files(name, directory) if path != directory / litert.OF_MEDIAPIPE)
