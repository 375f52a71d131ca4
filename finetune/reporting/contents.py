"""What a report is made of: values that others computed. What a project lacks is left out, and its section says so.

Names are as they are; sentences are `printable` already.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from finetune.checking.judgement import Checked
from finetune.evaluation.inference import Outputs
from finetune.evaluation.metrics import Scores
from finetune.records.dataset import Records
from finetune.runs.run import Loaded, Run


@dataclass(frozen=True)
class Candidate:
    """One of the networks that were compared."""

    name: str  # 'head', 'last blocks'
    precision: float
    interval: tuple[float, float]  # 95 %.
    measured_on: str  # As after "measured": 'out of fold over 3,170 training pictures', 'on 500 validation pictures, …'
    seconds: float  # That it took to train.
    won: bool = False


@dataclass(frozen=True)
class Contents:
    name: str  # Of the project.
    data: Records
    checked: Checked | None = None  # Of all splits of `data`.
    run: Run | None = None  # The one that won.
    loaded: Loaded | None = None  # Of it: its network shows where it looked, its trust how sure it is.
    subset: str = 'validation'  # What `outputs` are of.
    outputs: Outputs | None = None  # For every record of the subset, in order; extra is their familiarity.
    measured_on: str = ''  # How the outputs came about, where it is not by the network that won: as of a candidate.
    scores: Scores | None = None  # Of the outputs.
    found: Mapping = field(default_factory=dict)  # metrics.json, of the outputs.
    candidates: Sequence[Candidate] = ()
    comparison: str = ''  # A sentence: which candidate is better, by how much, and how sure that is.
    commands: Sequence[str] = ()  # That make all of this again.
    history: Sequence[Mapping[str, str]] = ()  # Rows of metrics.csv.

    @property
    def winner(self) -> Candidate | None:
        return next((candidate for candidate in self.candidates if candidate.won), None)
