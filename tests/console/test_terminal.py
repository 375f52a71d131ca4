import subprocess

import pytest

from finetune.console import terminal


@pytest.mark.parametrize('name', ['a b', "it's", r'back\slash', '$HOME', 'tür', '~', 'a=b', '-x', '*'])
def test_the_next_command_can_be_pasted(name, capsys):
    """A backslash was shown twice, as in all other lines, and the pasted command found nothing."""
    terminal.say_next('printf', '%s|', f'--data_dir={name}', name)
    line = capsys.readouterr().err.removeprefix('Next:  ')
    assert subprocess.run(['bash', '-c', line], capture_output=True, text=True).stdout == f'--data_dir={name}|{name}|'


@pytest.mark.parametrize('name', ['two\nlines', '\x1b[31mred', '\udcff', 'a\u202eb'])
def test_a_command_with_a_name_that_cannot_be_shown_is_not_said(name, capsys):
    terminal.say_next('finetune', 'eval', f'--data_dir={name}')
    assert capsys.readouterr().err == ''


def test_the_first_piece_of_work_which_waits_for_the_start_too_says_nothing_of_the_end(capsys):
    with terminal.Progress('Training', 10_000, 'steps', interval_secs=0) as progress:
        progress.advance()
        assert capsys.readouterr().err.endswith('? left\n')
        progress.advance()
        assert '?' not in capsys.readouterr().err
