"""The machine: the cores there are to use, and what a number was measured on, for every file that publishes one."""

import os
import platform
from pathlib import Path

from finetune.console.lazy import tf

FEATURES = ('avx', 'avx2', 'fma', 'avx512f', 'avx512_vnni', 'avx512_bf16', 'avx_vnni', 'amx_bf16', 'amx_int8')
CPUINFO = Path('/proc/cpuinfo')
PACKAGES = ('finetune', 'tensorflow', 'keras', 'numpy', 'scipy', 'pillow', 'openvino')


def cores() -> int:
    """How many this process may use; all of the machine where the system does not say, as macOS."""
    if hasattr(os, 'sched_getaffinity'):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def kernels() -> str:
    """Whose arithmetic TensorFlow computes with. Others round otherwise: the same bits come from the same kernels."""
    if tf.config.list_physical_devices('GPU'):
        return 'CUDA'
    asked = os.environ.get('TF_ENABLE_ONEDNN_OPTS', '').lower()
    return {'1': 'oneDNN', 'true': 'oneDNN', '0': 'Eigen', 'false': 'Eigen'}.get(asked, "TensorFlow's choice")


def describe() -> dict:
    """{'processor', 'features', 'kernels', 'cores', 'memory_gib', 'gpus', 'system'}"""
    gpus = [tf.config.experimental.get_device_details(gpu).get('device_name', gpu.name)
            for gpu in tf.config.list_physical_devices('GPU')]
    memory = os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES')
    return {
        'processor': _processor(),
        'features': _features(),
        'kernels': kernels(),
        'cores': cores(),
        'memory_gib': round(memory / 2**30, 1),
        'gpus': gpus,
        'system': platform.platform(),
    }


def _processor() -> str:
    return _told_by_linux('model name') or platform.machine()


def _features() -> list[str]:
    """Of what makes products of matrices fast, what this processor has; empty where the system does not say."""
    there = _told_by_linux('flags').split()
    return [feature for feature in FEATURES if feature in there]


def _told_by_linux(name: str) -> str:
    """Of the first processor in /proc/cpuinfo; '' where it is not told."""
    lines = CPUINFO.read_text().splitlines() if CPUINFO.exists() else []
    return next((line.partition(':')[2].strip() for line in lines if line.startswith(name)), '')


def versions() -> dict:
    """{'python': '3.12.3', 'tensorflow': '2.21.0', …}; None for a package that runs uninstalled."""
    return {'python': platform.python_version()} | {name: _version(name) for name in PACKAGES}


def _version(package: str) -> str | None:
    from importlib import metadata  # A build, which needs only the cores, does not wait for it.

    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
