"""The machine: the cores there are to use, and what a number was measured on, for every file that publishes one."""

import os
import platform
from pathlib import Path

from finetune.console.lazy import tf

PACKAGES = ('finetune', 'tensorflow', 'keras', 'numpy', 'scipy', 'pillow', 'openvino')


def cores() -> int:
    """How many this process may use; all of the machine where the system does not say, as macOS."""
    if hasattr(os, 'sched_getaffinity'):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def describe() -> dict:
    """{'processor', 'cores', 'memory_gib', 'gpus', 'system'}"""
    gpus = [tf.config.experimental.get_device_details(gpu).get('device_name', gpu.name)
            for gpu in tf.config.list_physical_devices('GPU')]
    memory = os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES')
    return {
        'processor': _processor(),
        'cores': cores(),
        'memory_gib': round(memory / 2**30, 1),
        'gpus': gpus,
        'system': platform.platform(),
    }


def _processor() -> str:
    cpuinfo = Path('/proc/cpuinfo')
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.partition(':')[2].strip() for line in lines if line.startswith('model name')]
    return names[0] if names else platform.machine()


def versions() -> dict:
    """{'python': '3.12.3', 'tensorflow': '2.21.0', …}; None for a package that runs uninstalled."""
    return {'python': platform.python_version()} | {name: _version(name) for name in PACKAGES}


def _version(package: str) -> str | None:
    from importlib import metadata  # A build, which needs only the cores, does not wait for it.

    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
