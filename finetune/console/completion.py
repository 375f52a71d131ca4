"""Completion of verbs, flags and values by a shell: a script for each, made of the table that --help shows."""

import textwrap
from collections.abc import Callable, Iterator, Mapping

from finetune.console.command import Flag, Flags
from finetune.console.errors import UsageError
from finetune.console.terminal import printable

EVERYWHERE = ('help', 'debug')
HELP_COLUMNS = 70


def script(shell: str, verbs: Mapping[str, str], flags: Mapping[str, Flags]) -> str:
    """`verbs` with what they do, and the flags of each; under '' those of the command without a verb.

    Nothing of this program runs while somebody types: all that is offered stands in the script.
    """
    if shell not in SCRIPTS:
        raise UsageError(f'--completion={printable(shell)} is not known: there are {", ".join(SCRIPTS)}')
    tables = {verb: [flag for group in of.table().values() for flag in group] for verb, of in flags.items()}
    return SCRIPTS[shell](verbs, tables)


# bash -----------------------------------------------------------------------------------------------------------------


def _bash(verbs: Mapping[str, str], tables: Mapping[str, list[Flag]]) -> str:
    """Where it offers nothing, bash offers files (`-o default`), with all that it knows of quotes and homes."""
    names = '\n'.join(f"        '{verb}') flags='{' '.join(_spelled(table))}' ;;" for verb, table in tables.items())
    takes = '\n'.join(
        f"        '{verb} --{flag.name}') values='{' '.join(flag.choices)}' ;;"
        for verb, table in tables.items() for flag in table if flag.takes == 'choice')
    others = '\n'.join(
        f'        {" | ".join(each)}) return ;;' for verb, table in tables.items()
        if (each := [f"'{verb} --{flag.name}'" for flag in table if flag.takes in ('path', 'value')]))
    return f'''\
# finetune for bash: in ~/.local/share/bash-completion/completions/finetune it is read when it is needed.
_finetune() {{
    local word=${{COMP_WORDS[COMP_CWORD]}} before=${{COMP_WORDS[COMP_CWORD-1]}} verb=${{COMP_WORDS[1]}}
    local flag= flags= values= whole= name
    COMPREPLY=()
    if [[ $COMP_CWORD == 1 && $word != -* ]]; then
        COMPREPLY=($(compgen -W '{' '.join(verbs)}' -- "$word"))
        while IFS= read -r name; do COMPREPLY+=("$name"); done < <(compgen -d -- "$word")
        compopt -o filenames 2>/dev/null
        return
    fi
    case $verb in {'|'.join(verbs)}) ;; *) verb= ;; esac
    # bash takes --flag=value apart, unless somebody has told it not to.
    if [[ $word == = ]]; then flag=$before word=
    elif [[ $before == = ]]; then flag=${{COMP_WORDS[COMP_CWORD-2]}}
    elif [[ $word == --*=* ]]; then flag=${{word%%=*}} whole=$flag= word=${{word#*=}}
    fi
    case "$verb ${{flag:-$before}}" in
{takes}
{others}
    esac
    if [[ $values ]]; then
        COMPREPLY=($(compgen -P "$whole" -W "$values" -- "$word"))
    elif [[ ! $flag && $word == -* ]]; then
        case $verb in
{names}
        esac
        COMPREPLY=($(compgen -W "$flags" -- "$word"))
        [[ ${{#COMPREPLY[@]}} == 1 && $COMPREPLY == *= ]] && compopt -o nospace 2>/dev/null
    fi
}}
complete -o default -F _finetune finetune
'''


def _spelled(table: list[Flag]) -> Iterator[str]:
    """As they begin on a command line."""
    for flag in table:
        yield from (f'--{flag.name}', f'--no{flag.name}') if flag.takes == 'switch' else (f'--{flag.name}=',)
    yield from (f'--{name}' for name in EVERYWHERE)


# zsh ------------------------------------------------------------------------------------------------------------------


def _zsh(verbs: Mapping[str, str], tables: Mapping[str, list[Flag]]) -> str:
    about = '\n'.join(f'            {_quoted(f"{verb}:{what}")}' for verb, what in verbs.items())
    cases = '\n'.join(_zsh_case(verb or '*', table) for verb, table in sorted(tables.items(), reverse=True))
    return f'''\
#compdef finetune
# finetune for zsh: as _finetune in a directory of $fpath; or read at the end of ~/.zshrc.
_finetune() {{
    local -a verbs
    if (( CURRENT == 2 )) && [[ $PREFIX != -* ]]; then
        verbs=(
{about}
        )
        _describe verb verbs
        _files -/
        return
    fi
    case $words[2] in
{cases}
    esac
}}
if [[ $funcstack[1] == _finetune ]]; then _finetune "$@"; else compdef _finetune finetune; fi
'''


def _zsh_case(verb: str, table: list[Flag]) -> str:
    specs = [spec for flag in table for spec in _zsh_specs(flag)] + [f'--{name}' for name in EVERYWHERE]
    lines = ' \\\n'.join(f'                {_quoted(spec)}' for spec in [*specs, '*:file:_files'])
    shifted = '' if verb == '*' else 'shift words; (( CURRENT-- )); '
    return f'        {verb})\n            {shifted}_arguments \\\n{lines} ;;'


def _zsh_specs(flag: Flag) -> list[str]:
    about = ''.join(f'\\{letter}' if letter in '[]:\\' else letter for letter in _short(flag.help))
    if flag.takes == 'switch':
        return [f'(--no{flag.name})--{flag.name}[{about}]', rf'(--{flag.name})--no{flag.name}[not\: {about}]']
    offered = {'choice': f'({" ".join(flag.choices)})', 'path': '_files', 'value': ' '}[flag.takes]
    return [f'--{flag.name}=[{about}]:{flag.name}:{offered}']


# fish -----------------------------------------------------------------------------------------------------------------


def _fish(verbs: Mapping[str, str], tables: Mapping[str, list[Flag]]) -> str:
    any_verb = f'__fish_seen_subcommand_from {" ".join(verbs)}'
    lines = ['# finetune for fish: in ~/.config/fish/completions/finetune.fish it is read when it is needed.']
    lines += [f'complete -c finetune -n {_quoted(f"not {any_verb}")} -a {verb} -d {_quoted(_short(what))}'
              for verb, what in verbs.items()]
    for verb, table in tables.items():
        here = _quoted(f'__fish_seen_subcommand_from {verb}' if verb else f'not {any_verb}')
        for flag in table:
            lines += [f'complete -c finetune -n {here} {how}' for how in _fish_options(flag)]
    return '\n'.join([*lines, *(f'complete -c finetune -l {name}' for name in EVERYWHERE)]) + '\n'


def _fish_options(flag: Flag) -> list[str]:
    about = f'-d {_quoted(_short(flag.help))}'
    if flag.takes == 'switch':
        return [f'-l {flag.name} {about}', f'-l no{flag.name} {about}']
    offered = {'choice': f'-x -a {_quoted(" ".join(flag.choices))}', 'path': '-r -F', 'value': '-x'}[flag.takes]
    return [f'-l {flag.name} {offered} {about}']


def _quoted(text: str) -> str:
    """One word of any of these shells. (fish takes a backslash in quotes for one before a quote or a backslash.)"""
    return "'" + text.replace("'", '’') + "'"


def _short(text: str) -> str:
    return textwrap.shorten(text, HELP_COLUMNS, placeholder=' …')


SCRIPTS: Mapping[str, Callable] = {'bash': _bash, 'zsh': _zsh, 'fish': _fish}
