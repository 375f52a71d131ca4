import re
import subprocess
import sys
import time

import pytest

from finetune import build, eval, predict, train
from finetune.console import command
from finetune.console.errors import Diverged, Error, Stopped, UsageError
from tools import show_records


@pytest.fixture
def flags():
    flags = command.Flags('finetune cook --soup=NAME POT ... [flags]', 'Cooks.')
    flags.group('pot')
    flags.string('soup', 'leek', 'which soup')
    flags.integer('spoons', None, 'how many', least=1)
    flags.switch('salt', False, 'add salt')
    flags.number('minutes', None, 'how long')
    flags.choice('heat', 'low', ('low', 'high'), 'of the stove')
    flags.alias('broth', 'soup')
    return flags


@pytest.mark.parametrize('typed', [
    ['--soup=pea', '--salt'], ['--soup', 'pea', '--salt=true'], ['--broth=pea', '-salt'],
    ['x.jpg', '--salt', '--soup=pea']])
def test_flags_are_understood_however_they_are_typed(flags, typed):
    values = flags.parse(typed)
    assert values.soup == 'pea' and values.salt is True
    assert values.given == {'soup', 'salt'}
    assert values.spoons is None


@pytest.mark.parametrize(('typed', 'sentence'), [
    (['--suop=pea'], "Did you mean: soup"), (['--spoons=0'], 'spoons'), (['--spoons=many'], 'spoons'),
    (['--salt=pea'], 'flag --salt=pea: expected true or false'),
    (['--suop=pea'], '`finetune cook --help` lists'),
    (['--heat=mild'], 'low'), (['--minutes=nan'], 'finite'), (['--minutes=inf'], 'finite')])
def test_a_wrong_flag_is_answered_with_what_is_right(flags, typed, sentence):
    with pytest.raises(UsageError, match=sentence):
        flags.parse(typed)


@pytest.mark.parametrize('typed', [['--pot=~/pot'], ['--pot', '~/pot']])
def test_a_path_may_begin_with_the_home_directory(flags, typed, monkeypatch):
    """bash expands neither: --pot=~/pot would make a folder called ~."""
    monkeypatch.setenv('HOME', '/home/me')
    flags.path('pot', None, 'where to cook')
    assert flags.parse(typed).pot == '/home/me/pot'
    assert flags.parse(['--pot=a~/b', '--soup=~/pea']).pot == 'a~/b' and flags.parse([]).pot is None
    assert flags.parse(['--soup=~/pea']).soup == '~/pea'


@pytest.mark.parametrize('verb', [build, train, eval, predict, show_records])
def test_every_flag_that_takes_a_path_takes_the_home_directory(verb, monkeypatch):
    monkeypatch.setenv('HOME', '/home/me')
    flags = getattr(verb, 'FLAGS', None) or verb.flags
    named = re.findall(r'--(\w+(?:_dir|_directory|_file)|pretrained|output)\b', flags.help())
    paths = {name for name in named if name in vars(flags.parse([]))}
    assert paths
    for name in paths:
        assert getattr(flags.parse([f'--{name}=~/x']), name) == '/home/me/x'


@pytest.mark.parametrize('typed', ['--lr=0.5', '--learning_rate=0.5'])
def test_the_learning_rate_is_found_under_the_names_it_has_elsewhere(typed):
    assert train.FLAGS.parse([typed]).initial_learning_rate == 0.5


def test_two_commands_do_not_share_flags(flags):
    other = command.Flags('finetune bake [flags]', 'Bakes.')
    other.string('soup', 'none', 'another flag of the same name')
    assert other.parse([]).soup == 'none' and flags.parse([]).soup == 'leek'


def test_help_shows_groups_defaults_and_aliases_do_not_clutter_it(flags, capsys):
    assert command.run(flags, lambda values: None, ['--help']) == 0
    out = capsys.readouterr().out
    assert 'pot:' in out and '--soup=leek' in out and 'broth' not in out


@pytest.mark.parametrize(('error', 'exit_code'), [
    (Error('the soup is cold'), 1), (UsageError('the soup is cold'), 2), (Diverged('the soup is cold'), 3),
    (KeyboardInterrupt(), 130), (RuntimeError('the soup is cold'), 1)])
def test_whatever_ends_a_command_is_one_sentence_and_an_exit_code(flags, capsys, error, exit_code):
    def work(values):
        raise error

    assert command.run(flags, work, []) == exit_code
    err = capsys.readouterr().err
    assert err.startswith('error: ') and err.count('\n') == 1


def test_a_stop_that_was_asked_for_is_not_called_an_error(flags, capsys):
    def work(values):
        raise Stopped('saved at step 3', 15)

    assert command.run(flags, work, []) == 143
    assert capsys.readouterr().err == 'saved at step 3\n'


def test_debug_shows_where(flags, capsys):
    def work(values):
        raise Error('the soup is cold')

    command.run(flags, work, ['--debug'])
    assert 'Traceback' in capsys.readouterr().err


@pytest.mark.parametrize('arguments', [
    ['-m', 'finetune', '--help'], ['-m', 'finetune', 'train', '--help'], ['-m', 'finetune.train', '--help'],
    ['-m', 'finetune.eval', '--help'], ['-m', 'finetune.predict', '--help'], ['-m', 'tools.build_tfrecords', '--help']])
def test_help_does_not_wait_for_tensorflow(arguments):
    """Half a second on an idle machine; here what must not happen is an import that takes four."""
    started = time.monotonic()
    out = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=True).stdout
    assert 'usage: finetune' in out
    assert time.monotonic() - started < 2.5


def test_a_build_of_folders_waits_for_neither_numpy_nor_tensorflow():
    """A thousand photos take half a second; NumPy alone would add a fifth to that."""
    program = 'import sys; import finetune.build; print(sorted({"numpy", "tensorflow"} & set(sys.modules)))'
    assert subprocess.run([sys.executable, '-c', program], capture_output=True, text=True).stdout == '[]\n'


def test_an_unknown_verb_is_answered_with_the_verbs():
    done = subprocess.run([sys.executable, '-m', 'finetune', 'trian'], capture_output=True, text=True, check=False)
    assert done.returncode == 2 and 'finetune train' in done.stderr


def test_a_flag_that_means_nothing_to_a_command_is_neither_taken_nor_shown():
    flags = command.Flags('finetune try', 'Tries.')
    flags.path('here', None, 'kept')
    flags.path('there', None, 'left out')
    flags.number('seed', 1, 'left out and added again')
    flags.leave_out('there', 'seed')
    flags.integer('seed', 2, 'again')
    parsed = flags.parse(['--here=~'])
    assert parsed.seed == 2 and not hasattr(parsed, 'there') and '--there' not in flags.help()
    with pytest.raises(UsageError):
        flags.parse(['--there=x'])
