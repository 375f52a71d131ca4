"""The validation of a training: every record counted once, whatever the number of machines."""

import contextlib
import dataclasses
from collections.abc import Callable, Sequence

from finetune.console.teams import Team
from finetune.evaluation import inference, metrics
from finetune.models import engines
from finetune.runs.state import State
from finetune.training import towers
from finetune.training.feeds import Feed


@dataclasses.dataclass(frozen=True)
class Scores:
    """Of a pass over all validation records."""

    records: int
    right: int
    right_in_5: int
    loss: float  # Mean cross-entropy of the true class, in nats.

    @property
    def precision_at_1(self) -> float:
        return self.right / self.records

    @property
    def recall_at_5(self) -> float:
        return self.right_in_5 / self.records


def function(state: State, feed: Feed, strategy, labels: Sequence[str], team: Team) -> Callable[[], Scores | None]:
    """Gives the scores of the averaged weights of the moment, None where no record validates. A meeting."""
    logits_of = engines.function(feed.network)
    here = towers.of_this_machine(strategy)

    def own_scores() -> Scores:
        """Of this machine's part."""
        if not feed.validated_here:
            return Scores(0, 0, 0, 0.0)
        with state.averages.applied() if state.averages else contextlib.nullcontext():
            outputs = inference.outputs(logits_of, feed.validated_here, here)
        found = metrics.score(outputs.labels, outputs.logits, labels)
        return Scores(found.records, found.right, found.right_in_5, found.loss)

    def scores() -> Scores | None:
        if not feed.validation:
            return None
        return together([Scores(*each) for each in team.gathered(dataclasses.astuple(own_scores()))])

    return scores


def together(parts: Sequence[Scores]) -> Scores:
    """Of parts that have no record in common."""
    if len(parts) == 1:
        return parts[0]
    records, right, right_in_5 = (
        sum(getattr(part, name) for part in parts) for name in ('records', 'right', 'right_in_5'))
    return Scores(records, right, right_in_5, sum(part.loss * part.records for part in parts) / records)
