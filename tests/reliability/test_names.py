"""Names are only names: no class and no file is called so that a line, a CSV or a JSON file breaks: R17."""

import os

import pytest

from tests import toy, toy_build
from tools.torture import failures, names


@pytest.mark.slow
def test_hostile_names_pass_through_every_verb_and_file(tmp_path):
    assert not failures(names.everywhere(tmp_path, seed=0, count=0), at_least=100)


def test_a_terminal_that_lacks_a_character_ends_no_command(tmp_path):
    """Where only ASCII can be printed, the rest stands as escapes."""
    toy.class_folders(tmp_path / 'pictures', {'a': 1, 'b': 1})
    ascii_only = os.environ | {'PYTHONIOENCODING': 'ascii'}
    done = toy_build.start(tmp_path / 'pictures', tmp_path / 'caf\u00e9', '--num_threads=1', env=ascii_only)
    printed, told = done.communicate(timeout=60)
    assert done.returncode == 0 and 'caf\\xe9' in printed, told
