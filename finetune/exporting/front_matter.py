"""The head of an export's README that model hubs read: YAML, of which JSON is a part."""

import json
from collections.abc import Mapping

from finetune.console.terminal import printable
from finetune.evaluation import metrics
from finetune.exporting.verification import Verdict
from finetune.models import packages
from finetune.runs.recipe import Recipe

LIBRARIES = {'savedmodel': 'tensorflow', 'openvino': 'openvino', 'litert': 'litert', 'onnx': 'onnx'}  # By format.
OURS = 'apache-2.0'  # Of the shipped backbone.


def license_of(recipe: Recipe) -> str | None:
    """Of the weights that a run began with, where it is known."""
    if recipe.pretrained == 'sample':
        return OURS
    if recipe.pretrained == 'imagenet' and recipe.model in packages.PACKAGES:
        return packages.PACKAGES[recipe.model].license
    return None


def of(facts: Mapping, verdicts: Mapping[str, Verdict]) -> str:
    """Of what `model.json` holds, and what was found of each format."""
    names, run = list(facts['formats']), facts['run']
    content = {
        'pipeline_tag': 'image-classification',
        'library_name': LIBRARIES[names[0]],
        'tags': ['image-classification', 'transfer-learning', run['network'], *names],
        **({'license': facts['license']} if facts['license'] else {}),
    }
    results = [_result(name, verdict, facts) for name, verdict in verdicts.items() if verdict.right is not None]
    if results:
        content |= {'metrics': ['accuracy'], 'model-index': [{'name': printable(run['name']), 'results': results}]}
    lines = [f'{key}: {json.dumps(value, ensure_ascii=False)}' for key, value in content.items()]
    return '\n'.join(['---', *lines, '---'])


def _result(name: str, verdict: Verdict, facts: Mapping) -> dict:
    low, high = metrics.wilson(verdict.right, verdict.pictures)
    said = f'precision@1 of {name} ({verdict.pictures} pictures, 95 % interval {low:.3f} to {high:.3f})'
    return {
        'task': {'type': 'image-classification'},
        'dataset': {'name': facts['verified_with'], 'type': 'imagefolder'},
        'metrics': [{'type': 'accuracy', 'name': said, 'value': round(verdict.right / verdict.pictures, 4)}],
    }
