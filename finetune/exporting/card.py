"""What stands beside an export's files: `labels.txt`, `model.json` for programs, `README.md` for people."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from finetune.console import machine
from finetune.console.files import write_atomically
from finetune.console.terminal import printable, table
from finetune.evaluation import metrics
from finetune.exporting import formats, front_matter
from finetune.exporting.formats import PRECISIONS, Format
from finetune.exporting.network import Network
from finetune.exporting.verification import Verdict
from finetune.runs.run import Loaded, Run

FACTS, LABELS, README = 'model.json', 'labels.txt', 'README.md'
VERSION = 1  # Of model.json.
OUTPUTS = {
    'logits': 'float32 [n, labels], in the order of the labels',
    'probabilities': 'float32 [n, labels], after the temperature',
    'evidence': 'float32 [n, rows, columns, labels]: what each part of what was seen adds to the logit of a label, '
                'beyond what it adds to all of them',
    'familiarity': 'float32 [n]: the share of real pictures that look at least as strange',
    'unknown': 'bool [n]: it looks stranger than the share of real pictures that is kept',
}


def facts(
    run: Run, loaded: Loaded, network: Network, pictures: str, precision: str, names: Sequence[str], directory: Path,
    findings: Mapping[str, int] | None
) -> dict:
    """What model.json holds before anything is proven; `pictures` says in words which ones are answered, `findings`
    how many of each kind a check of the records found.
    """
    return {
        'version': VERSION,
        'precision': precision,
        'labels': network.labels,
        'image_size': network.image_size,
        'crop_fraction': network.crop_fraction,
        'temperature': network.temperature,
        'keep': network.keep if network.can_abstain else None,
        'treatment': network.treatment,
        'run': {'name': run.directory.resolve().name, 'network': run.recipe.model,
                'pretrained': bool(run.recipe.pretrained), 'step': loaded.step,
                'records': run.records['fingerprint']},
        'training_pictures': {label: run.records['per_class'][number] for number, label in network.names.items()},
        'findings': findings,
        'license': front_matter.license_of(run.recipe),
        'versions': machine.versions(),
        'verified_with': pictures,
        'formats': {
            name: _of_format(name, PRECISIONS[precision][name], network, directory) for name in names},
    }


def _of_format(name: str, format: Format, network: Network, directory: Path) -> dict:
    missing = {*format.lacks, *(() if network.can_abstain else formats.OF_WHO_KNOWS),
               *(() if network.shows_evidence else ('evidence',))}
    outputs = {output: what for output, what in (OUTPUTS | format.outputs).items() if output not in missing}
    files = {str(path.relative_to(directory)): {'bytes': path.stat().st_size, 'sha256': _sha256(path)}
             for path in formats.files(name, directory)}
    return {'inputs': format.inputs, 'outputs': outputs, 'files': files}


def _sha256(path: Path) -> str:
    with path.open('rb') as file:
        return hashlib.file_digest(file, 'sha256').hexdigest()


def _of_verdict(verdict: Verdict) -> dict:
    found = {
        'pictures': verdict.pictures, 'same_labels': verdict.same_labels,
        'milliseconds': round(verdict.milliseconds, 2), 'largest_difference_of_a_logit': verdict.logit_difference,
        'largest_difference_of_familiarity': verdict.familiarity_difference}
    if verdict.right is None:
        return found
    return found | {'of_the_export': _precision(verdict.right, verdict.pictures),
                    'of_the_run': _precision(verdict.right_of_run, verdict.pictures)}


def _precision(right: int, total: int) -> dict:
    return {'precision@1': right / total, 'interval': list(metrics.wilson(right, total))}


def as_table(verdicts: Mapping[str, Verdict], directory: Path) -> str:
    """For the screen and the README: a line a format."""
    rows = [(name, formats.size(name, directory), f'{verdict.milliseconds:.1f}',
             f'{verdict.same_labels}/{verdict.pictures}',
             '-' if verdict.logit_difference is None else f'{verdict.logit_difference:.1e}',
             _shown(verdict.right, verdict.pictures), _shown(verdict.right_of_run, verdict.pictures))
            for name, verdict in verdicts.items()]
    header = ('format', 'bytes', 'ms/picture', 'same label', 'logits differ by', 'precision@1', "the run's")
    return table(rows, header)


def _shown(right: int | None, total: int) -> str:
    if right is None:
        return '-'
    low, high = metrics.wilson(right, total)
    return f'{right / total:.4f} [{low:.3f}, {high:.3f}]'


def write_facts(directory: Path, facts: dict) -> None:
    """Before the code is tried, which reads them, and again with what was found."""
    write_atomically(directory / LABELS, ''.join(f'{label}\n' for label in facts['labels']).encode())
    write_atomically(directory / FACTS, f'{json.dumps(facts, indent=2)}\n'.encode())


def write(directory: Path, facts: dict, verdicts: Mapping[str, Verdict], table: str) -> None:
    """All of it, once every format is proven."""
    proven = {name: told | {'verification': _of_verdict(verdicts[name])} for name, told in facts['formats'].items()}
    write_facts(directory, facts | {'formats': proven})
    write_atomically(directory / README, f'{front_matter.of(facts, verdicts)}\n{_readme(facts, table)}'.encode())


def _readme(facts: dict, table: str) -> str:
    run, keep = facts['run'], facts['keep']
    shown = ', '.join(map(printable, facts['labels'][:20])) + (', …' if len(facts['labels']) > 20 else '')
    about_unknown = (
        'A picture that looks like none of these is `unknown`: it gets a label only if it is no stranger than '
        f'{100 * keep:.4g} of 100 real pictures are. `familiarity` is the share of real pictures that look at least as '
        'strange.' if keep else 'It cannot say that a picture shows none of these.')
    lines = [
        f'# {printable(run["name"])}', '',
        f'A {run["network"]} that tells {len(facts["labels"])} labels: {shown}. {about_unknown}', '',
        f'It looks at the central {100 * facts["crop_fraction"]:.4g} % of each side, resized to {facts["image_size"]} '
        f'x {facts["image_size"]} pixels. Logits are divided by {facts["temperature"]:.4g} before the softmax. '
        '`model.json` has all that a program needs to know, `labels.txt` the labels in their order.', '',
        f'It learned from {_listed(facts["training_pictures"])} pictures. {_limits(facts["findings"])}', '',
        _licence(facts), '',
        f'Each format has answered {facts["verified_with"]}, in a process without the program that made it:', '',
        '```', table, '```', '', 'The code below answers pictures; it runs in this directory.']
    for name in facts['formats']:
        about = PRECISIONS[facts['precision']][name].about
        lines += ['', f'## {name}', '', about, '', '```python', formats.client(name).rstrip(), '```']
    return '\n'.join(lines) + '\n'


def _listed(counts: Mapping[str, int]) -> str:
    shown = ', '.join(f'{count} {printable(name)}' for name, count in list(counts.items())[:20])
    return f'{shown}, …: in all {sum(counts.values())}' if len(counts) > 20 else shown


def _licence(facts: dict) -> str:
    if not facts['run']['pretrained']:
        return 'It began with random weights.'
    known = facts['license'] or 'not known to the program that made this: look it up before you pass it on'
    return f'The licence of the weights that it began with is {known}.'


def _limits(findings: Mapping[str, int] | None) -> str:
    if findings is None:
        return 'These were not checked for wrong labels, copies and odd ones.'
    found = {name.replace('_', ' '): count for name, count in findings.items() if count}
    return f'A check of the records found in them: {_listed(found) or "nothing"}.'
