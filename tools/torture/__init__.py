"""Tortures: each gives one line a case, empty where the project survived it, else what went wrong."""

from collections.abc import Iterable, Iterator


def failures(cases: Iterable[str], at_least: int = 1) -> list[str]:
    """What went wrong. A torture that tried too little is a failure of its own."""
    lines = list(cases)
    wrong = [line for line in lines if line]
    return wrong if len(lines) >= at_least else [*wrong, f'only {len(lines)} of {at_least} cases were tried']


def unless(survived: bool, sentence: str) -> str:
    """One case: an empty line, or the sentence that says what went wrong."""
    return '' if survived else sentence


def together(*parts: Iterable[str]) -> Iterator[str]:
    for part in parts:
        yield from part
