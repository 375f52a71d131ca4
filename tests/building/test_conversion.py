"""One picture that ends the process which reads it does not end the build."""

import os
import signal
from dataclasses import dataclass

import pytest

from finetune.building import conversion
from finetune.building.sources import folders
from finetune.console.errors import Error
from tests import toy


@dataclass(frozen=True)
class Ends(folders.FolderLoader):
    """A loader whose decoder ends the process at one picture."""

    at: bytes = b''
    by: signal.Signals = signal.SIGSEGV

    def load(self, key):
        if key == self.at:
            os.kill(os.getpid(), self.by)
        return super().load(key)


def converted(tmp_path, processes: int, loader) -> conversion.Outcome:
    toy.class_folders(tmp_path / 'D', {'cat': 12})
    listing = folders.list_pictures(tmp_path / 'D', 'train_directory')
    labels = ('background', 'cat')
    source = folders.ClassFolders(listing, labels, loader(listing.directory))
    (tmp_path / str(processes)).mkdir()
    with conversion.split_writer(tmp_path / str(processes), 'train', 2, 12, 2) as writer:
        outcome = conversion.convert(source, labels, writer.write, 7, processes, lambda count: None)
        writer.close()
    return outcome


def test_a_picture_at_which_the_decoder_dies_is_listed_and_the_others_are_written(tmp_path):
    written = []
    for processes in (1, 3):
        outcome = converted(tmp_path, processes, lambda directory: Ends(directory, at=b'cat/5.jpg'))
        (image, reason, detail), = outcome.rejected
        assert (image.filename, reason, detail) == (b'cat/5.jpg', 'decoder_died', 'the decoder crashed at it')
        assert outcome.written == 11
        written.append([path.read_bytes() for path in sorted((tmp_path / str(processes)).iterdir())])
    assert written[0] == written[1]


def test_a_picture_that_the_system_ends_processes_for_is_named(tmp_path):
    """Going on would leave out of the records what a machine with more memory puts in."""
    with pytest.raises(Error, match=r'^cat/5\.jpg: .* memory .* --num_threads'):
        converted(tmp_path, 1, lambda directory: Ends(directory, at=b'cat/5.jpg', by=signal.SIGKILL))
