"""Modules that are imported when they are first used, so that `--help` and typing errors need not wait for TensorFlow."""

import importlib


class LazyModule:
    def __init__(self, name: str):
        self._name = name

    def __getattr__(self, attribute: str):
        return getattr(importlib.import_module(self._name), attribute)


tf = LazyModule('tensorflow')
keras = LazyModule('keras')
