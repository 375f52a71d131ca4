"""The nearest of very many, exactly, by products of blocks: memory for two blocks and the answer."""

from collections.abc import Callable

import numpy as np

BLOCK = 2048  # Rows: a product of two blocks takes 16 MB.
MANY, SKETCH = 20_000, 256  # From so many rows on, candidates are found by so many numbers of each.


def nearest(count: int, k: int, likeness: Callable[[slice, slice], np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """(places int32 [count, k], likenesses float32 [count, k]) of the k most alike to each row, the most alike first.

    `likeness` gives float32 [rows, rows] for two slices of rows, and is the same both ways. Where there are fewer than
    k others, the rest is -1 and minus infinity.
    """
    places = np.full((count, k), -1, np.int32)
    found = np.full((count, k), -np.inf, np.float32)
    blocks = [slice(first, min(first + BLOCK, count)) for first in range(0, count, BLOCK)]
    for number, rows in enumerate(blocks):
        for others in blocks[number:]:
            block = likeness(rows, others)
            if rows == others:
                np.fill_diagonal(block, -np.inf)
            _keep_best(places, found, rows, others.start, block)
            if rows != others:
                _keep_best(places, found, others, rows.start, block.T)
    order = np.argsort(-found, axis=1, kind='stable')
    return np.take_along_axis(places, order, axis=1), np.take_along_axis(found, order, axis=1)


def _keep_best(places: np.ndarray, found: np.ndarray, rows: slice, first_other: int, block: np.ndarray) -> None:
    """Of each row, the k best of what is kept and what the block offers; after a few blocks it offers little."""
    k, least = found.shape[1], found[rows].min(axis=1, keepdims=True)
    better = block > least
    if not np.isfinite(least).any() and k < block.shape[1]:  # The first block: all of it is better than nothing.
        better = block >= np.partition(block, -k, axis=1)[:, -k, None]
    row, column = np.nonzero(better)
    if not len(row):
        return
    touched, starts, counts = np.unique(row, return_index=True, return_counts=True)
    place_in_row = np.arange(len(row)) - starts.repeat(counts)
    offered = np.full((len(touched), counts.max()), -np.inf, np.float32)
    offered_places = np.full(offered.shape, -1, np.int32)
    at = np.arange(len(touched)).repeat(counts), place_in_row
    offered[at], offered_places[at] = block[row, column], column + first_other
    where = rows.start + touched
    values = np.concatenate([found[where], offered], axis=1)
    names = np.concatenate([places[where], offered_places], axis=1)
    best = np.argpartition(-values, k - 1, axis=1)[:, :k]
    found[where] = np.take_along_axis(values, best, axis=1)
    places[where] = np.take_along_axis(names, best, axis=1)


def unit_rows(features: np.ndarray) -> np.ndarray:
    """float32 [n, c] of length 1 each; a row of zeros stays one."""
    rows = features.astype(np.float32)
    lengths = np.sqrt(np.einsum('nc,nc->n', rows, rows))
    rows /= np.maximum(lengths, np.finfo(np.float32).tiny)[:, None]
    return rows


def by_cosine(rows: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """`nearest` of rows of length 1.

    Of very many, twice k candidates are found in the directions that hold most of all rows, a fifth of the work with
    1280 numbers a row; what is said of them is exact.
    """
    if len(rows) < MANY or rows.shape[1] <= SKETCH:
        return nearest(len(rows), k, lambda some, others: rows[some] @ rows[others].T)
    sketch = rows @ _directions(rows)
    candidates, _ = nearest(len(rows), 2 * k, lambda some, others: sketch[some] @ sketch[others].T)
    exact = np.empty(candidates.shape, np.float32)
    for first in range(0, len(rows), SKETCH):
        some = slice(first, first + SKETCH)
        exact[some] = np.einsum('nc,nkc->nk', rows[some], rows[candidates[some]])
    order = np.argsort(-exact, axis=1, kind='stable')[:, :k]
    return np.take_along_axis(candidates, order, axis=1), np.take_along_axis(exact, order, axis=1)


def _directions(rows: np.ndarray) -> np.ndarray:
    """[c, 256]: the orthogonal directions along which the rows are longest."""
    return np.linalg.eigh((rows.T @ rows).astype(np.float64))[1][:, -SKETCH:].astype(np.float32)
