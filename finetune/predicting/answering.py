"""What a run says of pictures: labels with their probabilities, `unknown`, or why nothing is said."""

import threading
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from finetune.console.errors import Error, Reject
from finetune.console.terminal import printable
from finetune.evaluation import metrics, unknown
from finetune.evaluation.results import json_text
from finetune.models import cuts, engines
from finetune.runs.run import Loaded
from finetune.runs.trust import Trust

UNKNOWN = 'unknown'  # The label of a picture of none of the classes.


@dataclass(frozen=True)
class Answer:
    """What is said of one file: labels with their probabilities, or why there are none.

    `familiarity` is the share of real pictures that look at least as strange; None where nobody knows.
    """

    path: str
    top: list[tuple[str, float]]
    rejected: Reject | None = None
    familiarity: float | None = None
    is_unknown: bool = False

    @property
    def ranks(self) -> list[tuple[str, float]]:
        """The same of a picture that is of no class: first that, and how likely a real one looks so strange."""
        return [(UNKNOWN, self.familiarity), *self.top][:len(self.top)] if self.is_unknown else self.top

    @property
    def label(self) -> str | None:
        return None if self.rejected else self.ranks[0][0]


def answerer(loaded: Loaded, names: dict[int, str], engine: str, top_k: int, keep: float | None) -> Callable:
    """Views, float32 [n, s, s, 3] -> what an `Answer` says of each, n dicts. Several threads may ask.

    `names` are `Run.answerable`; what looks stranger than the share `keep` of real pictures is unknown, and nothing is
    where it is None or the run does not know what its pictures look like. Raises Error for outputs that are not finite.
    """
    return of_outputs(outputs(loaded, engine), loaded, names, top_k, keep)


def outputs(loaded: Loaded, engine: str) -> Callable:
    """Views, float32 [n, s, s, 3] -> (logits [n, classes], pooled features [n, c]). Several threads may ask.

    Raises Error for outputs that are not finite.
    """
    outputs_of, asked_by_one = engines.frozen(cuts.with_features(loaded.model), engine), threading.Lock()

    def found(views) -> tuple[np.ndarray, np.ndarray]:
        with asked_by_one:  # OpenVINO answers one at a time, with all cores: two would both be slower.
            logits, features = (output.numpy() for output in outputs_of(views))
        if not np.isfinite(logits).all():
            raise Error(f'{printable(loaded.path)}: the outputs are not finite. Try another --checkpoint=STEP.')
        return logits, features

    return found


def of_outputs(outputs_of: Callable, loaded: Loaded, names: dict[int, str], top_k: int, keep: float | None) -> Callable:
    """The `answerer` of a network that is there already."""
    def said(views) -> list[dict]:
        logits, features = outputs_of(views)
        tops = top(logits / (loaded.trust.temperature if loaded.trust else 1.0), names, top_k)
        if keep is None or not can_abstain(loaded):
            return [{'top': each} for each in tops]
        familiar = _familiarity(features, logits, loaded.trust)
        return [_with_familiarity(*each, names, keep) for each in zip(tops, familiar, strict=True)]

    return said


def can_abstain(loaded: Loaded) -> bool:
    return loaded.trust is not None and loaded.trust.can_abstain


def _familiarity(features: np.ndarray, logits: np.ndarray, trust: Trust) -> list[float]:
    return unknown.familiarity(features, logits, trust.class_means, trust.energy_weight, trust.scores).tolist()


def _with_familiarity(top: list[tuple[str, float]], familiar: float, names: dict[int, str], keep: float) -> dict:
    background = names.get(0)  # Where the run has pictures of it: as good a name for none of the others.
    return {'top': top, 'familiarity': familiar, 'is_unknown': familiar <= 1 - keep and top[0][0] != background}


def top(logits: np.ndarray, names: dict[int, str], k: int) -> list[list[tuple[str, float]]]:
    """The k best of the named classes for each picture; probabilities are over all outputs, as in evaluation."""
    numbers = np.array(list(names))
    likely = metrics.probabilities(logits)
    best = numbers[metrics.ranked(logits[:, numbers], k)]
    return [[(names[n], float(row[n])) for n in order] for order, row in zip(best.tolist(), likely, strict=True)]


def facts(answer: Answer) -> dict:
    """As JSON has it."""
    if answer.rejected:
        found = {'error': answer.rejected.reason, 'detail': json_text(answer.rejected.detail)}
    else:
        found = {'answers': [{'label': label, 'probability': likely} for label, likely in answer.top]}
        if answer.familiarity is not None:
            found |= {'unknown': answer.is_unknown, 'familiarity': answer.familiarity}
    return {'file': json_text(answer.path), **found}
