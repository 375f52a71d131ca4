"""What --pretrained is given may mean harm: it is data here, never a program, and takes no more than it has: R14.

Links out of a weight file, pickles and archives are in tests/models/test_weights.py too, with what is said of them; all
that the reader of PyTorch's files is given is in tests/models/test_torch_file.py.
"""

import pytest

from finetune.console.errors import Error
from finetune.runs.run import Run
from tools.torture import failures, hostile

TOO_MUCH = ('four tebibytes', 'many of four gibibytes', 'deflated zeros', 'one array by many names', 'never written',
            'huge chunks of small arrays', 'chunks that hold more than they tell', 'a layer that is an endless array')
ELSEWHERE = ('external layer', 'external array', 'external root', 'soft link', 'virtual', 'external storage',
             'names of elsewhere')
WAITED_FOR = ('a FIFO', 'a checksum from a FIFO', 'a checksum from zero', 'a run from a FIFO', 'a run from zero')
TORCH = 'a program for a tensor', 'one number a tebibyte', 'keys that take for ever', 'a zip that is a bomb'
NO_NUMBERS = ('texts', 'references', 'ragged', 'records', 'a checksum that is no text', 'a run of brackets',
              'a run that is a list', 'a run of nothing', 'a run of no network')


@pytest.mark.slow
def test_no_hostile_file_is_taken_waited_for_or_run(tmp_path):
    programs = 'a pickle', 'a whole model with a program'
    chosen = *programs, *ELSEWHERE, *TOO_MUCH, *WAITED_FOR, *TORCH, *NO_NUMBERS
    assert not failures(hostile.refused(tmp_path, seed=0, count=0, names=chosen), at_least=len(chosen))


@pytest.mark.parametrize('content', [b'', b'[]', b'{}', b'[' * 200_000, b'\xff', b'{"recipe": {}, "labels": []}'])
def test_a_damaged_recipe_is_named_in_one_sentence(tmp_path, content):
    (tmp_path / 'recipe.json').write_bytes(content)
    with pytest.raises(Error, match=r'recipe\.json'):
        _ = Run(tmp_path).labels
