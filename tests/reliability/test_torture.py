"""The tool that fills the table of docs/reliability.md: no figure is left out, lost or passed in silence."""

import pytest

from tools.torture import __main__ as torture

FEW = [
    torture.Figure('R1-R3', 'many', lambda place, seed, count: iter([''] * count), 4),
    torture.Figure('R5', 'fails on the way', lambda place, seed, count: ('' if i else 1 / 0 for i in (1, 0, 1))),
    torture.Figure('R9', 'one bad', lambda place, seed, count: iter(['', 'a hole'])),
    torture.Figure('R9', 'not here', lambda place, seed, count: iter(['']), needs=torture.ROOT),
    torture.Figure('R10', 'nothing', lambda place, seed, count: iter([])),
]


@pytest.fixture(autouse=True)
def few_figures(monkeypatch):
    monkeypatch.setattr(torture, 'FIGURES', FEW)
    monkeypatch.setitem(torture.HAVE, torture.ROOT, False)


def test_a_torture_that_ends_with_an_exception_is_one_failed_case_and_the_others_follow(capsys):
    assert torture.main([]) == 1
    printed, told = capsys.readouterr()
    assert '| R5 | fails on the way | 2 | 1 | 0 |' in printed and '| R10 | nothing | 0 | 0 | 0 |' in printed
    assert 'R5: the torture ended with ZeroDivisionError' in told and 'R9: a hole' in told


def test_what_this_machine_cannot_try_is_told_and_is_no_failure(capsys, monkeypatch):
    monkeypatch.setattr(torture, 'FIGURES', FEW[3:4])
    assert torture.main(['R9']) == 0
    assert '| R9 | not here | not tried: needs root |' in capsys.readouterr().out


@pytest.mark.parametrize(('typed', 'tried'), [(['R2'], 4), (['R1', 'R3', '--count=7'], 7)])
def test_three_figures_are_one_row(typed, tried, capsys):
    assert torture.main(typed) == 0
    assert capsys.readouterr().out.count(f'| R1-R3 | many | {tried} | {tried} | 0 |') == 1


@pytest.mark.parametrize(('typed', 'said'), [
    ('R99', 'no figure is called R99; there are R1-R3 R5 R9 R10'), ('r9', 'called r9; there are'),
    ('--count=0', 'above 0'), ('--count=-3', 'above 0'), ('--count=many', 'above 0'),
])
def test_what_cannot_be_meant_is_answered_with_what_there_is(typed, said, capsys):
    with pytest.raises(SystemExit, match='2'):
        torture.main([typed])
    assert said in capsys.readouterr().err
