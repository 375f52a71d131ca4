"""Bytes of a picture -> what is told of it: decoded by as many threads as there are cores, answered one at a time."""

import base64
import contextlib
import ctypes
import io
import threading
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from finetune.console.errors import Reject
from finetune.predicting import pipeline
from finetune.predicting.answering import Answer, facts
from finetune.reporting import evidence
from finetune.serving.served import Said, Served

SIDE = 320  # Pixels of the picture that explains.
M_ARENA_MAX, M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -8, -1, -3  # Of mallopt(3).


@dataclass(frozen=True)
class Explanation:
    picture: str  # A data: URL.
    where: str  # In words.


@dataclass(frozen=True)
class Told:
    answer: Answer
    explanation: Explanation | None = None


def desk(served: Served, most_pixels: int, cores: int) -> Callable[[bytes, str | None], Told]:
    """(the bytes of a file, against what its answer is explained: `mean`, `second`, or None) -> what is told."""
    decoding, network = threading.BoundedSemaphore(cores), threading.Lock()
    own = served.treatment.get('max_pixels', most_pixels)
    treatment = served.treatment | {'max_pixels': min(own, most_pixels)}

    def told(data: bytes, against: str | None = None) -> Told:
        try:
            with decoding:
                given = served.prepared(_admitted(data, treatment))
        except Reject as reject:
            return Told(Answer('', [], reject))
        with network:  # Two would share the cores, and both be slower than one after the other.
            said = served.said(given, against is not None)
        answer = Answer('', **said.answer)
        return Told(answer, _explained(said, answer, served.labels, against) if said.evidence is not None else None)

    told.network = network
    return told


def _admitted(data: bytes, treatment: dict) -> bytes:
    if not data:
        raise Reject('empty_file', '0 bytes')
    encoded = pipeline.admit(data, treatment)
    if isinstance(encoded, Reject):
        raise encoded
    return encoded


def _explained(said: Said, answer: Answer, labels: list[str], against: str) -> Explanation | None:
    first, *others = (labels.index(label) for label, _ in answer.top)
    if not others:
        return None  # There is nothing that it might have been instead.
    spoke = said.evidence[..., first]
    if against == 'second':
        spoke = spoke - said.evidence[..., others[0]]
    look, file = evidence.look(said.view, np.asarray(spoke, np.float32), SIDE), io.BytesIO()
    look.where.save(file, 'JPEG', quality=90)
    return Explanation(f'data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}', look.words)


def as_json(told: Told, top_k: int) -> dict:
    """As `predict --jsonl` has it, without a file, and with the explanation."""
    answer = told.answer
    shown = Answer('', answer.top[:top_k], answer.rejected, answer.familiarity, answer.is_unknown)
    found = facts(shown) | {'file': None}
    if told.explanation:
        found |= {'explanation': told.explanation.picture, 'where': told.explanation.where}
    return found


def keep_memory_small() -> None:
    """The C library of GNU makes a heap for each thread and keeps what is freed in it: two, which give it back."""
    with contextlib.suppress(AttributeError, OSError):  # Another library.
        libc = ctypes.CDLL(None)
        libc.mallopt(M_ARENA_MAX, 2)
        libc.mallopt(M_MMAP_THRESHOLD, 1 << 20)
        libc.mallopt(M_TRIM_THRESHOLD, 1 << 22)
