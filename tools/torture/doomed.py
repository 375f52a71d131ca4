"""A build that dies by SIGKILL just before its Nth step on the disk; with N = 0 it lives and says how many there were.

    python -m tools.torture.doomed N exchange|two_renames --train_directory=… --output_directory=…

A step is what Python's audit hooks tell of: a file opened, removed, renamed, locked; a directory made, listed, removed;
the call that exchanges two names. The files that `shutil.rmtree` removes one by one, by a descriptor of their folder,
are one step together. `two_renames` is how it goes where the system cannot exchange them.
"""

import itertools
import os
import signal
import sys

from finetune import build
from finetune.building import staging

ON_PATHS = {'open', 'os.mkdir', 'os.remove', 'os.rename', 'os.rmdir', 'os.scandir', 'os.listdir', 'os.truncate',
            'shutil.rmtree'}
WITHOUT_PATHS = {'ctypes.dlsym', 'fcntl.flock'}


def main() -> int:
    doom, how, *flags = sys.argv[1:]
    if how == 'two_renames':
        staging._exchange = lambda one, other: False
    output = next(flag.partition('=')[2] for flag in flags if flag.startswith('--output_directory='))
    steps = itertools.count(1)
    beside, done = os.path.dirname(output), 0  # noqa: PTH120 - audit hooks tell of strings.

    def step(event: str, arguments: tuple) -> None:
        nonlocal done
        on_it = event in ON_PATHS and os.fsdecode(arguments[0] if isinstance(arguments[0], (str, bytes)) else b'')
        if event in WITHOUT_PATHS or (on_it and on_it.startswith(beside)):
            done = next(steps)
            if done == int(doom):
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(step)
    code = build.main(flags)
    print(f'steps: {done}', file=sys.stderr)
    return code


if __name__ == '__main__':
    raise SystemExit(main())
