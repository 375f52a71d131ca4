"""The four commands as a user types them, on tiny pictures."""

import json
import re
import subprocess
import sys

import pytest

from tests import toy


def command(*arguments, cwd, exit_code=0):
    done = subprocess.run(
        [sys.executable, '-m', *map(str, arguments)], cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == exit_code, done.stderr
    assert 'Traceback' not in done.stderr
    return done


@pytest.mark.slow
def test_pictures_become_records_a_classifier_numbers_and_answers(tmp_path, pytestconfig):
    counts = {'cat': 8, 'dog': 8}
    toy.class_folders(tmp_path / 'D/train', counts)
    toy.class_folders(tmp_path / 'D/validation', {'cat': 3, 'dog': 4}, first=20)
    (tmp_path / 'D/train/cat/broken.jpg').write_bytes(b'not a picture')
    root = pytestconfig.rootpath

    built = command('tools.build_tfrecords', f'--train_directory={tmp_path}/D/train',
                    f'--validation_directory={tmp_path}/D/validation', f'--output_directory={tmp_path}/records',
                    '--train_shards=2', '--validation_shards=2', '--num_threads=2', cwd=root)
    assert 'skipped 1' in built.stdout.splitlines()[-1]

    small = ('--model=mobilenet_v2', '--width=0.35', '--image_size=32', '--batch_size=8')
    places = (f'--data_dir={tmp_path}/records', f'--train_dir={tmp_path}/run')
    command('finetune.train', *places, *small, '--max_steps=2', cwd=root)
    resumed = command('finetune', 'train', *places, '--max_steps=3', cwd=root)
    assert 'goes on from step 2' in resumed.stderr

    tuned = command('finetune.train', places[0], f'--train_dir={tmp_path}/tuned', f'--pretrained={tmp_path}/run',
                    '--fine_tune', '--freeze_backbone', '--batch_size=8', '--max_steps=2', cwd=root)
    assert 'head: new' in tuned.stderr and 'Computing features of 16 pictures once' in tuned.stderr

    evaluated = command('finetune.eval', f'--checkpoint_dir={tmp_path}/run', places[0], '--run_once', cwd=root)
    assert re.search(r'precision @ 1 = [01]\.\d{4} recall @ 5 = 1\.0000 \[7 examples\]', evaluated.stdout)
    metrics = json.loads((tmp_path / 'run/eval/validation/metrics.json').read_text())
    assert metrics

    photos = [tmp_path / 'D/validation/cat/20.jpg', tmp_path / 'D/train/cat/broken.jpg']
    answered = command('finetune.predict', f'--checkpoint_dir={tmp_path}/run', '--jsonl', *photos,
                       cwd=root, exit_code=1)
    good, bad = map(json.loads, answered.stdout.splitlines())
    assert good and 'not_an_image' in json.dumps(bad)
