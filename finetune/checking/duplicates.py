"""Pictures that stand in the data more than once, the same or nearly the same: which pairs, and what each one harms."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from finetune.checking import neighbours, pdq
from finetune.checking.album import Album
from finetune.checking.findings import PAIRS, Finding

# Measured on eleven kinds of copy of 300 photos: together they find 0.86, and 2 of 38 pairs of real photos are none.
NEAR_COSINE = 0.92
MOST_DIFFERENT_BITS = 40
# Networks differ in how alike they find everything. So a pair is also nearer than the nearest of a picture usually is:
# as the logarithm of the angle, below the middle case by three times what lies between that and the 84th of 100, which
# is the side that copies do not change. MobileNetV2 on photos is bound by the cosine, a small one on drawings by this.
FAR_QUANTILE, TIMES_NEARER = 0.84, 3.0
NEIGHBOURS = 8  # Of each picture; in a series of 100 nearly equal ones, not every pair need be named.


@dataclass(frozen=True)
class Pair:
    one: int
    other: int
    cosine: float  # Of the pooled features; -1 where they were not asked.
    different_bits: int  # Of 256, perhaps in a mirror; 256 where they were not asked.
    same: bool  # Pixel for pixel.

    @property
    def likeness(self) -> float:
        return 1.0 if self.same else max(self.cosine, 1 - self.different_bits / pdq.BITS)


def pairs(glimpses: np.ndarray, places: np.ndarray, cosines: np.ndarray) -> list[Pair]:
    """Every pair, the most alike first; a picture that stands there k times makes k - 1 pairs with its first place.

    `places` and `cosines` [n, k] are the nearest by features, of the first n pictures of `glimpses`.
    """
    _, first, inverse = np.unique(glimpses['digest'], return_index=True, return_inverse=True)
    first = first[inverse.ravel()]
    found = {(int(first[i]), i): Pair(int(first[i]), i, 1.0, 0, True)
             for i in np.flatnonzero(first != np.arange(len(first))).tolist()}
    near = {}
    for one, other, likeness in _edges(places, cosines, near_bound(cosines)):
        near[one, other] = likeness, pdq.BITS
    for one, other, different in _alike_by_hash(glimpses):
        near[one, other] = near.get((one, other), (-1.0, 0))[0], int(different)
    for (one, other), (cosine, different) in near.items():
        if first[one] == one and first[other] == other:  # Of equal ones, the first speaks for all.
            found[one, other] = Pair(one, other, float(cosine), different, False)
    return sorted(found.values(), key=lambda pair: (-pair.likeness, pair.one, pair.other))


def near_bound(cosines: np.ndarray) -> float:
    """The cosine from which on two pictures are called nearly the same."""
    nearest = cosines[:, 0][np.isfinite(cosines[:, 0])] if cosines.size else np.array([])
    if not len(nearest):
        return NEAR_COSINE
    middle, far = np.quantile(np.log(np.arccos(np.clip(nearest, -1, 1 - 1e-6))), (0.5, FAR_QUANTILE))
    return max(NEAR_COSINE, math.cos(min(math.pi, math.exp(middle - TIMES_NEARER * (far - middle)))))


def _edges(places: np.ndarray, likenesses: np.ndarray, bound: float) -> Iterator[tuple[int, int, float]]:
    """(one, other, likeness) of neighbours that are as alike as that, once each."""
    rows, columns = np.nonzero(likenesses[:, :NEIGHBOURS] >= bound)
    seen = set()
    for one, other, likeness in zip(rows.tolist(), places[rows, columns].tolist(), likenesses[rows, columns].tolist(),
                                    strict=True):
        pair = min(one, other), max(one, other)
        if pair not in seen:
            seen.add(pair)
            yield *pair, likeness


def _alike_by_hash(glimpses: np.ndarray) -> Iterator[tuple[int, int, float]]:
    """(one, other, different bits) by PDQ, as they are or mirrored, of pictures that show enough to have a hash."""
    _, first = np.unique(glimpses['digest'], return_index=True)
    telling = np.sort(first[glimpses['hash_quality'][first] >= pdq.ENOUGH_QUALITY])
    still, turned = np.split(_signs(glimpses['bits'][telling]), [pdq.BITS - pdq.TURNED], axis=1)

    def agreement(some: slice, others: slice) -> np.ndarray:
        """Of the picture or of its mirror, whichever agrees more: 256 less twice the different bits."""
        return still[some] @ still[others].T + np.abs(turned[some] @ turned[others].T)

    places, agreeing = neighbours.nearest(len(telling), NEIGHBOURS, agreement)
    for one, other, likeness in _edges(places, agreeing, pdq.BITS - 2 * MOST_DIFFERENT_BITS):
        yield int(telling[one]), int(telling[other]), (pdq.BITS - likeness) / 2


def _signs(packed: np.ndarray) -> np.ndarray:
    """float32 [n, 256], 1 and -1: the product of two rows is 256 less twice the different bits."""
    return np.unpackbits(packed, axis=1).astype(np.float32) * 2 - 1


def findings(album: Album, found: list[Pair]) -> Iterator[Finding]:
    """A row for what each pair harms: a leak between splits, a contradiction between classes, else a duplicate."""
    for pair in found:
        how = 'the same picture' if pair.same else 'nearly the same picture'
        one, other = pair.one, pair.other
        splits, labels = album.split[[one, other]], album.labels[[one, other]]
        if splits[0] != splits[1]:
            names = ' and '.join(album.splits[split] for split in splits)
            yield Finding('leak', pair.likeness, f'{how} in {names}: keep one, or figures look better than they are',
                          (one, other))
        if labels[0] != labels[1]:
            yield Finding('contradiction', pair.likeness, f'{how} in two classes: keep it in the right one',
                          (one, other))
        if splits[0] == splits[1] and labels[0] == labels[1]:
            yield Finding('duplicate', pair.likeness, f'{how} twice in one class: keep one', (one, other))


def groups(found: Sequence[Finding], count: int) -> np.ndarray:
    """A number for each of so many pictures, int [count]: the same for those that pairs of findings connect."""
    number = np.arange(count)
    for finding in found:
        if finding.kind in PAIRS:
            one, other = (number[place] for place in finding.places)
            number[number == max(one, other)] = min(one, other)
    return number
