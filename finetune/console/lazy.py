"""Modules that are imported when first used, so that `--help` and typing errors need not wait for TensorFlow."""

import contextlib
import importlib
import os
import platform
import sys

from finetune.console import streams


class LazyModule:
    def __init__(self, name: str, needs_tensorflow: bool = True):
        self._name, self._needs_tensorflow = name, needs_tensorflow

    def __getattr__(self, attribute: str):
        if self._needs_tensorflow and 'tensorflow' not in sys.modules:
            _import_tensorflow()
        return getattr(importlib.import_module(self._name), attribute)


def _import_tensorflow() -> None:
    if platform.machine() in ('x86_64', 'AMD64'):
        # TensorFlow itself uses oneDNN only where it finds AVX-512 with VNNI; with AVX2 it is as much faster.
        os.environ.setdefault('TF_ENABLE_ONEDNN_OPTS', '1')
    quiet = os.environ.get('TF_CPP_MIN_LOG_LEVEL') == '3'
    with streams.silent_stderr() if quiet else contextlib.nullcontext():
        config = importlib.import_module('tensorflow').config
        for gpu in config.list_physical_devices('GPU'):
            config.experimental.set_memory_growth(gpu, True)  # Leaves room for an evaluation beside a training.


tf = LazyModule('tensorflow')
keras = LazyModule('keras')
