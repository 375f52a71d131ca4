"""What shells offer, asked of the shells themselves."""

import os
import pty
import re
import select
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from finetune import __main__ as front
from finetune import train
from finetune.console import command, completion

HOME = Path(__file__).parents[2]


@pytest.fixture(scope='module')
def scripts(tmp_path_factory):
    """By shell, the file of the script that is printed."""
    directory = tmp_path_factory.mktemp('completion')
    for shell in completion.SCRIPTS:
        (directory / shell).write_text(completion.script(shell, front.VERBS, front._flags()))
    return directory


@pytest.fixture
def here(tmp_path):
    """Where somebody types: with a folder of photos, a file, and names that need quotes."""
    (tmp_path / 'photos').mkdir()
    (tmp_path / 'two words').mkdir()
    (tmp_path / 'phone.jpg').touch()
    return tmp_path


def needs(shell: str) -> None:
    if not shutil.which(shell):
        pytest.skip(f'{shell} is not installed')


def of_bash(script: Path, words: list[str], cwd: Path) -> list[str]:
    """COMPREPLY for these words, the last of which is being typed."""
    needs('bash')
    quoted = ' '.join(f"'{word}'" for word in words)
    asked = (f'source {script}; COMP_WORDS=({quoted}); COMP_CWORD={len(words) - 1}; _finetune; '
             'printf "%s\\n" "${COMPREPLY[@]}"')
    done = subprocess.run(['bash', '--norc', '-c', asked], cwd=cwd, capture_output=True, text=True, check=True)
    assert not done.stderr.replace('compopt', ''), done.stderr
    return [line for line in done.stdout.splitlines() if line]


def of_fish(script: Path, line: str, cwd: Path) -> list[str]:
    needs('fish')
    done = subprocess.run(['fish', '--no-config', '-c', f'source {script}; complete -C "{line}"'], cwd=cwd,
                          capture_output=True, text=True, check=True, env=os.environ | {'HOME': str(cwd)})
    return [each.partition('\t')[0] for each in done.stdout.splitlines()]


def typed(shell: list[str], begin: str, line: str, cwd: Path) -> str:
    """The arguments that a command gets when somebody types the line into the shell, and Tab where it says so."""
    needs(shell[0])
    process, terminal = pty.fork()
    if not process:
        os.chdir(cwd)
        os.execvpe(shell[0], shell, os.environ | {'HOME': str(cwd), 'TERM': 'dumb', 'PS1': '$ ', 'HISTFILE': ''})
    try:
        shown = 'finetune() { printf "got"; printf "<%s>" "$@"; printf "end"; }'
        os.write(terminal, f'{shown}; {begin}; echo rea""dy\n'.encode())
        _screen_until(terminal, r'\nready')
        os.write(terminal, f'{line}\n'.encode())
        return re.search('got(<.*)end', _screen_until(terminal, 'got<.*end'))[1]
    finally:
        os.close(terminal)
        os.waitpid(process, 0)


def _screen_until(terminal: int, pattern: str, seconds: float = 20) -> str:
    screen, ends = '', time.monotonic() + seconds
    while not re.search(pattern, screen.replace('\r', '')):
        assert time.monotonic() < ends, screen
        if select.select([terminal], [], [], 0.1)[0]:
            screen += os.read(terminal, 65536).decode(errors='replace')
    return screen


BASH = ['bash', '--norc', '--noprofile', '-i']
ZSH = ['zsh', '-f', '-i']


# bash -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(('words', 'offered'), [
    (['tr'], ['train']), (['e'], ['eval', 'export']), (['ph'], ['photos']),
    (['train', '--data'], ['--data_dir=']), (['train', '--freeze'], ['--freeze_backbone']),
    (['train', '--nokeep'], ['--nokeep_best']), (['train', '--optimizer', '=', 'ne'], ['nesterov']),
    (['train', '--optimizer', '='], ['rmsprop', 'sgd', 'momentum', 'nesterov', 'adam', 'adamw', 'adadelta',
                                     'regression']),
    (['train', '--optimizer', 'ne'], ['nesterov']), (['train', '--optimizer=ne'], ['--optimizer=nesterov']),
    (['predict', '--sort_by', '='], ['link', 'copy']), (['predict', '--optimizer', '='], []),
    (['photos', '--effort', '=', ''], ['quick', 'good', 'best']), (['photos', '--eff'], ['--effort=']),
    (['--eff'], ['--effort=']), (['train', '--data_dir', '=', 'ph'], []), (['predict', 'ph'], []),
    (['train', '--epochs', '=', ''], []), (['build', '--deb'], ['--debug'])])
def test_bash_offers_verbs_flags_and_values(scripts, here, words, offered):
    assert of_bash(scripts / 'bash', ['finetune', *words], here) == offered


@pytest.mark.parametrize(('line', 'becomes'), [
    ('finetune tra\t--optim\tnest\t', '<train><--optimizer=nesterov>'),
    ('finetune build --train_dir\tphoto\t', '<build><--train_directory=photos/>'),
    ('finetune predict pho\tn\t', '<predict><phone.jpg>'), ('finetune phot\t', '<photos/>'),
    ('finetune train --freeze\t', '<train><--freeze_backbone>'),
    ('finetune build --train_directory=two\t', '<build><--train_directory=two words/>')])
def test_a_tab_in_bash(scripts, here, line, becomes):
    assert typed(BASH, f'source {scripts}/bash', line, here) == becomes


# zsh ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(('line', 'becomes'), [
    ('finetune tra\t--optim\tnest\t', '<train><--optimizer=nesterov>'),
    ('finetune build --train_dir\tphoto\t', '<build><--train_directory=photos>'),
    ('finetune photos --effo\tqui\t', '<photos><--effort=quick>'), ('finetune photo\t', '<photos>'),
    ('finetune train --freeze\t', '<train><--freeze_backbone>')])
def test_a_tab_in_zsh(scripts, here, line, becomes):
    """It takes the slash behind a folder away again when the line ends there."""
    begin = f'autoload -U compinit; compinit -u -D; source {scripts}/zsh'
    assert typed(ZSH, begin, line, here) == becomes


# fish -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(('line', 'offered'), [
    ('finetune tr', ['train']), ('finetune train --optimizer=ne', ['--optimizer=nesterov']),
    ('finetune train --nokeep', ['--nokeep_best']), ('finetune photos --effort=q', ['--effort=quick']),
    ('finetune build --train_directory=ph', ['--train_directory=phone.jpg', '--train_directory=photos/'])])
def test_fish_offers_verbs_flags_and_values(scripts, here, line, offered):
    assert of_fish(scripts / 'fish', line, here) == offered


# All of them ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize('shell', completion.SCRIPTS)
def test_every_flag_that_help_shows_is_offered(scripts, shell):
    script = (scripts / shell).read_text()
    for verb, flags in front._flags().items():
        for name in re.findall(r'^  --(\w+)', flags.help(), re.MULTILINE):
            assert re.search(rf'(--|-l ){name}\b', script), f'{verb} --{name}'


@pytest.mark.parametrize('shell', completion.SCRIPTS)
def test_help_with_quotes_dollars_and_brackets_breaks_no_script(tmp_path, shell):
    needs(shell)
    flags = command.Flags('finetune cook', 'Cooks.')
    flags.string('soup', 'leek', "it's [hot]: $(touch broken) `touch broken` \\ \"x\" 100 %")
    flags.choice('heat', 'low', ('low', 'high'), "of 'the' stove")
    (tmp_path / 'script').write_text(completion.script(shell, {'cook': "makes 'soup': $(touch broken)"},
                                                       {'cook': flags, '': flags}))
    options = {'bash': ['--norc'], 'zsh': ['-f'], 'fish': ['--no-config']}[shell]
    ready = {'zsh': 'compdef() {}; '}.get(shell, '')
    done = subprocess.run([shell, *options, '-c', f'{ready}source ./script'], cwd=tmp_path, capture_output=True,
                          text=True, check=False)
    assert (done.returncode, done.stderr) == (0, '') and not (tmp_path / 'broken').exists()


@pytest.mark.parametrize('asked', [['--completion=bash'], ['--completion', 'bash']])
def test_the_script_is_printed_without_waiting_for_tensorflow(asked):
    program = ('import sys; from finetune import __main__ as front; code = front.main(sys.argv[1:]); '
               'sys.exit(9 if "tensorflow" in sys.modules else code)')
    done = subprocess.run([sys.executable, '-c', program, *asked], cwd=HOME, capture_output=True, text=True,
                          check=False)
    assert done.returncode == 0 and 'complete -o default -F _finetune finetune' in done.stdout


def test_another_shell_is_answered_with_those_there_are(capsys):
    assert front.main(['--completion=tcsh']) == 2
    assert 'bash, zsh, fish' in capsys.readouterr().err


def test_the_table_says_what_a_flag_takes():
    told = {flag.name: flag for group in train.FLAGS.table().values() for flag in group}
    assert [told[name].takes for name in ('data_dir', 'fine_tune', 'optimizer', 'epochs')] == [
        'path', 'switch', 'choice', 'value']
    assert 'nesterov' in told['optimizer'].choices and told['fine_tune'].default is False
