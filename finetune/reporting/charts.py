"""Drawings as SVG, by hand: a bar, a matrix, and charts of points and lines.

They take their colours from the page (light or dark), and say nothing by colour alone: a line is solid or dashed, a
point round or square, a number stands beside its bar. What a drawing shows is told in words to those who do not see it.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup

from finetune.console import terminal

WIDTH, HEIGHT = 440, 300  # Of a chart, in units that a phone shows a little smaller than pixels.
LEFT, RIGHT, TOP, BOTTOM = 54, 24, 34, 48  # What stands around the area of the data.
CHARACTER = 7.2  # Wide, about, in labels.
BAR_WIDTH, BAR_HEIGHT = 150, 14
MOST_POINTS, MOST_DOTS = 200, 40  # Of a line; more points than that are the line alone.
LONGEST_NAME = 22  # Columns, in a matrix.

Point = tuple[float, float]


def _svg(title: str, description: str, width: float, height: float, inside: Sequence[Markup]) -> Markup:
    """A drawing that a screen reader reads as its title and its description."""
    return Markup(
        '<svg class="chart" role="img" aria-label="{}. {}" viewBox="0 0 {:.0f} {:.0f}" width="{:.0f}" height="{:.0f}">'
        '<title>{}</title><desc>{}</desc>{}</svg>').format(
            title, description, width, height, width, height, title, description, Markup('').join(inside))


def bar(share: float, interval: tuple[float, float] | None = None) -> Markup:
    """A share of 1 as a bar, its interval as a whisker. The numbers stand beside it, so that it is not read aloud."""
    middle = BAR_HEIGHT / 2
    parts = [Markup('<rect class="track" width="{}" height="{}"/>').format(BAR_WIDTH, BAR_HEIGHT),
             Markup('<rect class="bar" width="{:.1f}" height="{}"/>').format(share * BAR_WIDTH, BAR_HEIGHT)]
    if interval:
        low, high = (np.clip(end * BAR_WIDTH, 0.75, BAR_WIDTH - 0.75) for end in interval)
        parts.append(Markup('<path class="whisker" d="M{0:.1f} 3V11M{1:.1f} 3V11M{0:.1f} {2}H{1:.1f}"/>').format(
            low, high, middle))
    return Markup('<svg class="barchart" aria-hidden="true" viewBox="0 0 {0} {1}" width="{0}" height="{1}">{2}</svg>'
                  ).format(BAR_WIDTH, BAR_HEIGHT, Markup('').join(parts))


# A matrix -------------------------------------------------------------------------------------------------


def matrix(counts: np.ndarray, names: Sequence[str], title: str, description: str) -> Markup:
    """`counts[true, answered]`: right answers are framed, and the fuller a cell, the more of its row lies in it."""
    names = [_shortened(name) for name in names]
    cell = 34 if len(names) <= 12 else 26
    margin = 30 + max(map(terminal.columns, names)) * CHARACTER
    side = cell * len(names)
    parts = [Markup('<text x="{:.0f}" y="14" class="faint">answered</text>').format(margin),
             Markup('<text x="0" y="{:.0f}" class="faint">is</text>').format(margin - 8)]
    for number, name in enumerate(names):
        middle = margin + (number + 0.5) * cell
        parts.append(Markup('<text x="{:.0f}" y="{:.1f}" text-anchor="end">{}</text>').format(
            margin - 8, middle + 4, name))
        parts.append(Markup('<text transform="translate({:.1f} {:.0f}) rotate(-90)">{}</text>').format(
            middle + 4, margin - 8, name))
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    parts.append(Markup('<path class="grid" d="{}"/>').format(_grid(margin, side, cell)))
    for row, column in np.argwhere(counts).tolist():
        # The square root shows single mistakes too: 1 of 100 has a tenth of the colour.
        parts.append(Markup(
            '<rect class="{}" x="{:.1f}" y="{:.1f}" width="{}" height="{}" fill-opacity="{:.2f}"/>'
            '<text x="{:.1f}" y="{:.1f}" text-anchor="middle">{}</text>').format(
                'right' if row == column else 'wrong', margin + column * cell + 1.5, margin + row * cell + 1.5,
                cell - 3, cell - 3, 0.06 + 0.44 * math.sqrt(shares[row, column]),
                margin + (column + 0.5) * cell, margin + (row + 0.5) * cell + 4, counts[row, column]))
    return _svg(title, description, margin + side + 2, margin + side + 2, parts)


def _grid(margin: float, side: float, cell: float) -> str:
    places = np.arange(margin, margin + side + 1, cell)
    return ''.join(f'M{margin:.0f} {at:.0f}h{side:.0f}M{at:.0f} {margin:.0f}v{side:.0f}' for at in places)


def _shortened(name: str) -> str:
    return name if terminal.columns(name) <= LONGEST_NAME else f'{name[:LONGEST_NAME - 1]}…'


# Charts ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Axis:
    name: str
    low: float
    high: float
    ticks: Sequence[tuple[float, str]]  # Where, and what stands there.
    logarithmic: bool = False

    def share(self, value: float) -> float:
        """How far along the axis it lies: 0 at its beginning, 1 at its end."""
        low, high, value = (map(math.log, (self.low, self.high, value)) if self.logarithmic else
                            (self.low, self.high, value))
        return (min(max(value, low), high) - low) / (high - low)


@dataclass(frozen=True)
class Series:
    """Points that belong together. The first look is solid with round points, the second dashed with square ones."""

    name: str  # '' stands in no legend.
    points: Sequence[Point]
    look: str = 'one'  # 'one', 'two', or 'faint': a thin line without a colour.
    line: bool = True
    dots: bool = True
    intervals: Sequence[tuple[float, float]] = ()  # Of each point: from where to where it may lie.


def axis(name: str, values: Sequence[float], least_step: float = 1e-6) -> Axis:
    """One that holds the values, with a round number at every tick."""
    ticks = _round_numbers(min(values), max(values), least_step)
    return Axis(name, ticks[0], ticks[-1], [(tick, f'{tick:g}') for tick in ticks])


def axis_of_shares(name: str, values: Sequence[float]) -> Axis:
    """The same in percent, with as many decimals as the ticks need."""
    high = max(values)
    ticks = _round_numbers(max(0.0, min(*values, high - 0.01)), high, 0.001)
    decimals = 0 if all(abs(tick * 100 - round(tick * 100)) < 1e-6 for tick in ticks) else 1
    return Axis(name, ticks[0], ticks[-1], [(tick, f'{tick:.{decimals}%}') for tick in ticks])


def _round_numbers(low: float, high: float, least_step: float) -> list[float]:
    """Some five, from below the one to above the other."""
    step = max(_round_step(max(high - low, abs(high) * 0.01, 1e-6) / 5), least_step)
    first, last = math.floor(low / step + 1e-9), max(math.ceil(high / step - 1e-9), math.floor(low / step + 1e-9) + 1)
    return [round(number * step, 10) for number in range(first, last + 1)]


def _round_step(about: float) -> float:
    """The smallest of …, 0.1, 0.2, 0.5, 1, 2, 5, … that is no smaller."""
    power = 10.0 ** math.floor(math.log10(about))
    return power * next(times for times in (1, 2, 5, 10) if times * power >= about * (1 - 1e-9))


def chart(title: str, description: str, x: Axis, y: Axis, every: Sequence[Series]) -> Markup:
    """Points and lines over two axes, with a legend where more than one has a name."""
    named = [series for series in every if series.name]
    parts = [*_axes(x, y), *(_legend(named) if len(named) > 1 else ())]
    for series in every:
        parts += _drawn(series, x, y)
    return _svg(title, description, WIDTH, HEIGHT, parts)


def _across(axis: Axis, value: float) -> float:
    return LEFT + axis.share(value) * (WIDTH - LEFT - RIGHT)


def _up(axis: Axis, value: float) -> float:
    return HEIGHT - BOTTOM - axis.share(value) * (HEIGHT - TOP - BOTTOM)


def _axes(x: Axis, y: Axis) -> Iterator[Markup]:
    bottom = HEIGHT - BOTTOM
    for value, text in y.ticks:
        yield Markup('<path class="grid" d="M{} {:.1f}H{}"/><text x="{}" y="{:.1f}" text-anchor="end">{}</text>'
                     ).format(LEFT, _up(y, value), WIDTH - RIGHT, LEFT - 6, _up(y, value) + 4, text)
    for value, text in x.ticks:
        yield Markup('<path class="grid" d="M{0:.1f} {1}v5"/><text x="{0:.1f}" y="{2}" text-anchor="middle">{3}</text>'
                     ).format(_across(x, value), bottom, bottom + 18, text)
    yield Markup('<path class="axis" d="M{} {}H{}"/>').format(LEFT, bottom, WIDTH - RIGHT)
    yield Markup('<text class="faint" x="{}" y="{}" text-anchor="end">{}</text>').format(
        WIDTH - RIGHT, HEIGHT - 8, x.name)
    yield Markup('<text class="faint" x="2" y="14">{}</text>').format(y.name)


def _legend(named: Sequence[Series]) -> Iterator[Markup]:
    right = WIDTH - RIGHT
    for series in reversed(named):
        start = right - terminal.columns(series.name) * CHARACTER
        yield Markup('<text x="{:.1f}" y="14">{}</text>').format(start, series.name)
        yield Markup('').join(_strokes(series, [(start - 30, 10), (start - 8, 10)] if series.line else [], []))
        yield Markup('').join(_dots(series, [(start - 19, 10)]))
        right = start - 44


def _drawn(series: Series, x: Axis, y: Axis) -> Iterator[Markup]:
    points = [(_across(x, across), _up(y, up)) for across, up in _thinned(series.points)]
    whiskers = [(_across(x, across), _up(y, low), _up(y, high))
                for (across, _), (low, high) in zip(series.points, series.intervals, strict=False)]
    yield from _strokes(series, points if series.line else [], whiskers)
    yield from _dots(series, points)


def _thinned(points: Sequence[Point]) -> Sequence[Point]:
    kept = np.unique(np.linspace(0, len(points) - 1, min(len(points), MOST_POINTS)).round().astype(int))
    return [points[place] for place in kept]


def _strokes(
    series: Series, points: Sequence[Point], whiskers: Sequence[tuple[float, float, float]]
) -> Iterator[Markup]:
    if len(points) > 1:
        path = 'M' + 'L'.join(f'{across:.1f} {up:.1f}' for across, up in points)
        yield Markup('<path class="line {}" d="{}"/>').format(series.look, path)
    for across, low, high in whiskers:
        yield Markup('<path class="whisker" d="M{0:.1f} {1:.1f}V{2:.1f}M{3:.1f} {1:.1f}h8M{3:.1f} {2:.1f}h8"/>').format(
            across, low, high, across - 4)


def _dots(series: Series, points: Sequence[Point]) -> Iterator[Markup]:
    for across, up in points if series.dots and len(points) <= MOST_DOTS else ():
        if series.look == 'two':
            yield Markup('<rect class="dot two" x="{:.1f}" y="{:.1f}" width="8" height="8"/>').format(
                across - 4, up - 4)
        else:
            yield Markup('<circle class="dot {}" cx="{:.1f}" cy="{:.1f}" r="4.5"/>').format(series.look, across, up)
