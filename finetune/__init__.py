"""Turns a folder of labelled pictures into a good classifier, and says how far to trust it.

    import finetune
    run = finetune.open('checkpoints/photos')
    for answer in run.predict(['a.jpg', 'folder/']):
        print(answer.label, answer.probability)

Here are the names; what they do is in `finetune/interface.py`, which is imported when one of them is first used.
"""

import importlib
import os
import sys
import types
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from finetune.console.errors import Error as Error
    from finetune.console.errors import Stopped as Stopped
    from finetune.console.errors import UsageError as UsageError
    from finetune.console.terminal import quiet as quiet
    from finetune.interface import Answer as Answer
    from finetune.interface import Run as Run
    from finetune.interface import build as build
    from finetune.interface import check as check
    from finetune.interface import compare as compare
    from finetune.interface import eval as eval
    from finetune.interface import export as export
    from finetune.interface import open as open
    from finetune.interface import predict as predict
    from finetune.interface import project as project
    from finetune.interface import train as train
    from finetune.records.dataset import Records as Records

os.environ['KERAS_BACKEND'] = 'tensorflow'  # Before Keras is imported, whatever the user's keras.json says.

VERBS = ('build', 'check', 'compare', 'eval', 'export', 'predict', 'project', 'train')
HOMES = {  # Of every other name.
    'Error': 'console.errors', 'Stopped': 'console.errors', 'UsageError': 'console.errors', 'quiet': 'console.terminal',
    'Records': 'records.dataset', 'Answer': 'interface', 'Run': 'interface', 'open': 'interface',
}
__all__ = [*VERBS, *HOMES]


if not TYPE_CHECKING:  # Which would take every name for one that is there.
    def __getattr__(name: str):
        if name in VERBS:
            return importlib.import_module(f'finetune.{name}')
        if name in HOMES:
            return getattr(importlib.import_module(f'finetune.{HOMES[name]}'), name)
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


class _Verb(types.ModuleType):
    """The module of a verb, which can be called, too.

    `finetune.train` is two things: the file that `python -m finetune.train` and `from finetune import train` mean, and
    the function that somebody expects who types `finetune.train(records, 'checkpoints/photos')`. Whichever of the two
    the name led to, importing the file would make it the module: the import system binds every submodule in its
    package. So it is always the module, and the module is callable, in whatever order things are imported. Type
    checkers are told of the function alone.
    """

    def __call__(self, *arguments: Any, **flags: Any) -> Any:
        return self._function(*arguments, **flags)

    @property
    def __signature__(self) -> Any:
        """With a keyword for each flag, for those who complete them."""
        return importlib.import_module('finetune.interface').signature(self._name)

    @property
    def _name(self) -> str:
        return self.__name__.rpartition('.')[2]

    @property
    def _function(self) -> Any:
        return getattr(importlib.import_module('finetune.interface'), self._name)


class _Package(types.ModuleType):
    """This one: makes callable what the import system binds here (by `setattr`, as the language says that it does)."""

    def __setattr__(self, name: str, value: Any) -> None:
        if name in VERBS and type(value) is types.ModuleType:
            value.__class__ = _Verb
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
