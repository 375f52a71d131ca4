"""The formats that a run is exported to, in the order of their usefulness."""

import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from finetune.console.errors import UsageError
from finetune.console.terminal import printable
from finetune.exporting import litert, onnx, openvino, savedmodel

CLIENTS = Path(__file__).parent / 'clients'


@dataclass(frozen=True)
class Format:
    write: Callable  # (network, the export's directory), which has a folder of the format's name.
    inputs: dict[str, str]  # What goes in, by name,
    outputs: dict[str, str]  # and what comes out beside or otherwise than what all formats give.
    needs: tuple[str, ...]  # The modules that write and read it.
    about: str  # What one should know of it.


PIXELS = 'uint8 [n, height, width, 3], upright, RGB, of any size; cropped and resized inside'
FORMATS = {
    'savedmodel': Format(
        savedmodel.write,
        {'files': 'string [n]: JPEG, PNG or GIF files, of any sizes; cropped and resized inside; of signature '
                  '`serving_default`',
         'pixels': f'{PIXELS}; of signature `serving_pixels`'},
        {'labels': 'string [n, labels], the most probable first',
         'probabilities': 'float32 [n, labels], of these, after the temperature'},
        ('tensorflow',),
        'For TensorFlow, and TensorFlow Serving with `savedmodel` as the directory of the model. Files are decoded, '
        'turned upright (EXIF) and put on white where they are transparent inside the graph. It knows no WebP, '
        'BMP, TIFF or HEIC, and no colour profiles; one file that it cannot read makes the whole batch an error. '
        '`labels` and `probabilities` come with the most probable first.'),
    'openvino': Format(
        openvino.write, {'pixels': PIXELS}, {}, ('openvino',),
        'For CPUs, without TensorFlow. **Compile it with `INFERENCE_PRECISION_HINT` f32**, as below: CPUs that have '
        'bfloat16 use it by themselves, and then the answers are others, and worse.'),
    'litert': Format(
        litert.write,
        {'image': 'float32 [1, image_size, image_size, 3] in [0, 1]: upright, RGB, the central part, resized as '
                  'README.md does it'},
        {}, ('ai_edge_litert',),
        'For phones and small machines; once TensorFlow Lite. It takes the picture as the network sees it: whoever '
        'calls it crops and resizes, as below (`crop_fraction` and `image_size` stand in `model.json`).'),
    'onnx': Format(
        onnx.write, {'pixels': PIXELS}, {}, ('tf2onnx', 'onnx', 'onnxruntime'),
        f'For the many programs that read ONNX (opset {onnx.OPSET}), ONNX Runtime first.'),
}


def named(text: str) -> list[str]:
    """'savedmodel,openvino' -> the formats, each once; a UsageError for what is none or cannot be made here."""
    names = list(dict.fromkeys(part.strip() for part in text.split(',') if part.strip()))
    unknown = [name for name in names if name not in FORMATS]
    if unknown or not names:
        raise UsageError(f'--format={printable(text)} is not understood: expected one or several of '
                         f'{",".join(FORMATS)}')
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
