"""`finetune PHOTOS`: everything from a folder to a report, once, and again where something changed."""

import json
import os
import shutil
from pathlib import Path

import pytest

from finetune import __main__ as front
from finetune import check, eval, predict, project
from finetune.console.errors import Diverged
from finetune.models import zoo
from finetune.projects import pictures, plans, worth
from finetune.records import dataset
from finetune.reporting import report
from finetune.runs.run import Run
from finetune.training import loop
from tests import toy, toy_net, toy_run
from tests.checking.albums import photo, saved


@pytest.fixture(scope='module')
def backbone(tmp_path_factory):
    """A run of the toy network, as first weights."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(zoo.NETS, 'toy', zoo.Net(toy_net.backbone, 16, zoo.MINUS_ONE_TO_ONE))
        run = toy_run.start_run(tmp_path_factory.mktemp('backbone') / 'run')
        toy_run.save_checkpoint(run, step=1)
    return run.directory


@pytest.fixture
def photos(tmp_path):
    """Two classes that their colours tell apart; 24 pictures of each."""
    return toy.class_folders(tmp_path / 'photos', {'rose': 24, 'tulip': 24}, size=(64, 48))


@pytest.fixture(autouse=True)
def last_blocks(monkeypatch):
    monkeypatch.setitem(zoo.NETS, 'toy', zoo.Net(toy_net.backbone, 16, zoo.MINUS_ONE_TO_ONE, last_blocks='last_conv'))
    monkeypatch.setitem(plans.BLOCKS, 'epochs', 2.0)


def finetune(photos, backbone, *flags, code=0):
    assert project.main([str(photos), f'--output={photos.parent}/project', f'--pretrained={backbone}',
                         '--engine=tensorflow', '--num_threads=1', *flags]) == code
    return photos.parent / 'project'


def test_a_folder_becomes_a_model_a_number_and_a_report(photos, backbone, capsys):
    made = finetune(photos, backbone, '--effort=quick')
    told = capsys.readouterr()
    assert (made / 'report.html').stat().st_size > 10_000
    assert (made / 'model').read_text() == 'head\n'
    assert '95 % interval' in told.out and '10-fold cross-validation over all 48 pictures' in told.out
    assert 'The report: ' in told.out and f'--checkpoint_dir={made}' in told.err
    assert (made / 'check/findings.csv').exists()


@pytest.mark.slow
def test_the_run_with_more_right_answers_stands_for_the_project(photos, backbone, capsys):
    made = finetune(photos, backbone)
    told = capsys.readouterr().out
    right = {name: json.loads((made / name / 'eval/validation/metrics.json').read_text())['figures']['precision@1']
             for name in ('head', 'last_blocks')}
    chosen = (made / 'model').read_text().strip()
    assert right[chosen] == max(right.values())
    assert 'head' in told and 'last_blocks' in told
    assert Run(made / 'last_blocks').best_step is None  # Its last epoch counts: no choice flatters it.


@pytest.mark.slow
def test_typed_again_it_does_nothing_twice(photos, backbone, capsys, monkeypatch):
    finetune(photos, backbone, '--effort=quick')
    first = capsys.readouterr().out.splitlines()[-2:]
    monkeypatch.setattr(project, '_carry_out', lambda *_: pytest.fail('it worked again'))
    finetune(photos, backbone, '--effort=quick')
    told = capsys.readouterr()
    assert told.out.splitlines()[-2:] == first and 'Nothing has changed' in told.err


@pytest.mark.slow
def test_new_pictures_are_taken_in_and_the_model_answers_on_meanwhile(photos, backbone, monkeypatch):
    made = finetune(photos, backbone, '--effort=quick')
    before = dataset.open_records(made / 'records').fingerprint
    toy.class_folders(photos, {'rose': 6, 'tulip': 6}, size=(64, 48), first=500)

    def killed(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(loop, 'solve_head', killed)
        finetune(photos, backbone, '--effort=quick', code=130)
    assert Run(made).records['fingerprint'] == before and Run(made).steps()
    finetune(photos, backbone, '--effort=quick')
    records = dataset.open_records(made / 'records')
    assert Run(made).records['fingerprint'] == records.fingerprint != before
    assert sum(split.records for split in records.splits.values()) == 60
    assert not (made / 'previous').exists()


@pytest.mark.slow
def test_killed_between_any_two_steps_it_goes_on(photos, backbone, monkeypatch):
    """And the end is the same as if nothing had happened."""
    straight = finetune(photos, backbone)
    expected = (straight / 'last_blocks/metrics.csv').read_text(), (straight / 'model').read_text()
    shutil.move(straight, photos.parent / 'straight')

    def killed(*_, **__):
        raise KeyboardInterrupt

    for room, step in ((pictures, 'looked_at'), (pictures, 'checked'), (worth, 'of_head'), (worth, 'evaluated'),
                       (report, 'write')):
        with monkeypatch.context() as patch:
            patch.setattr(room, step, killed)
            finetune(photos, backbone, code=130)
    made = finetune(photos, backbone)
    found = (made / 'last_blocks/metrics.csv').read_text(), (made / 'model').read_text()
    rates = [text.split(',') for text in found[0].split()], [text.split(',') for text in expected[0].split()]
    assert [row[:2] + row[5:] for row in rates[0]] == [row[:2] + row[5:] for row in rates[1]]
    assert found[1] == expected[1]


@pytest.mark.slow
def test_predict_and_eval_take_a_project_where_they_take_a_run(photos, backbone, capsys):
    made = finetune(photos, backbone, '--effort=quick')
    assert predict.main([f'--checkpoint_dir={made}', str(photos / 'rose/0.jpg'), '--engine=tensorflow']) == 0
    assert eval.main([f'--checkpoint_dir={made}', '--run_once', '--engine=tensorflow']) == 0
    assert 'precision @ 1' in capsys.readouterr().out


def test_a_model_file_that_leads_out_of_the_project_is_refused(tmp_path, capsys):
    (tmp_path / 'project').mkdir()
    (tmp_path / 'project/model').write_text('../elsewhere\n')
    assert predict.main([f'--checkpoint_dir={tmp_path}/project', 'x.jpg']) == 1
    assert 'names no run of this project' in capsys.readouterr().err


@pytest.mark.slow
def test_test_pictures_give_the_number_where_there_are_some(photos, backbone, capsys):
    finetune(photos, backbone, '--test_percent=20')
    assert 'test pictures that nothing was chosen by' in capsys.readouterr().out


@pytest.mark.slow
def test_what_there_is_no_time_for_is_said_and_left_out(photos, backbone, capsys):
    made = finetune(photos, backbone, '--minutes=0.1')
    assert 'Left out: the last blocks' in capsys.readouterr().err
    assert not (made / 'last_blocks').exists() and (made / 'report.html').exists()


@pytest.mark.slow
def test_where_the_last_blocks_cannot_be_trained_the_head_stands(photos, backbone, capsys, monkeypatch):
    def diverged(*_, **__):
        raise Diverged('training diverged at step 1')

    with monkeypatch.context() as patch:
        patch.setattr(loop, 'train_steps', diverged)
        made = finetune(photos, backbone)
    assert 'could not be trained: training diverged' in capsys.readouterr().err
    assert (made / 'model').read_text() == 'head\n' and (made / 'report.html').exists()
    assert json.loads((made / 'project.json').read_text())['done'] is None  # Typed again, it is tried again.


@pytest.mark.slow
def test_broken_pictures_and_hostile_names_go_through_to_the_report(photos, backbone, capsys):
    (photos / 'rose/broken.jpg').write_bytes(b'\xff\xd8\xff nothing')
    (photos / '<script>alert(1)<').mkdir()
    for number in range(24):
        name = os.fsencode(photos) + b'/<script>alert(1)</' + b'a\n\xff%d.jpg' % number
        Path(os.fsdecode(name)).write_bytes(saved(photo(number)))
    made = finetune(photos, backbone, '--effort=quick')
    assert 'skipped 1 ' in capsys.readouterr().out
    assert '<script' not in (made / 'report.html').read_text()


@pytest.mark.parametrize(('words', 'said'), [
    (['nowhere/photos'], 'there is no such folder'),
    (['photos', 'others'], 'one folder of pictures is expected'),
    (['trian'], 'Did you mean train?'),
    (['--effort=better', 'photos'], 'effort'),
    (['photos', '--minuets=3'], 'minutes'),
    (['photos', '--output=photos/project'], 'choose another --output'),
    (['photos/rose'], 'no class folders'),
])
def test_wrong_words_are_answered_with_one_sentence(photos, tmp_path, words, said, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert front.main(words) in (1, 2)
    error = capsys.readouterr().err
    assert said in error and 'Traceback' not in error
    assert not (tmp_path / 'checkpoints').exists() or not any((tmp_path / 'checkpoints').iterdir())


def test_a_folder_with_other_things_in_it_is_no_project(photos, backbone, capsys):
    (photos.parent / 'project').mkdir()
    (photos.parent / 'project/thesis.txt').write_text('years of work')
    finetune(photos, backbone, code=1)
    assert 'thesis.txt, and is no project' in capsys.readouterr().err
    assert [path.name for path in (photos.parent / 'project').iterdir()] == ['thesis.txt']


@pytest.mark.slow
def test_runs_of_the_user_are_neither_taken_for_a_project_nor_deleted(photos, backbone, tmp_path, capsys):
    place = tmp_path / 'checkpoints'
    run = toy_run.start_run(place / 'head')
    toy_run.save_checkpoint(run, step=1)
    assert project.main([str(photos), f'--output={place}', f'--pretrained={backbone}']) == 1
    assert 'is no project' in capsys.readouterr().err and Run(place / 'head').steps() == [1]
    made = finetune(photos, backbone, '--effort=quick')
    shutil.copytree(run.directory, made / 'my_own_run')
    toy.class_folders(photos, {'rose': 1}, size=(64, 48), first=900)
    finetune(photos, backbone, '--effort=quick')
    assert Run(made / 'my_own_run').steps() == [1]


@pytest.mark.slow
def test_two_folders_of_one_name_are_two_projects(photos, backbone, tmp_path, capsys):
    made = finetune(photos, backbone, '--effort=quick')
    before = (made / 'report.html').read_bytes()
    other = toy.class_folders(tmp_path / 'other/photos', {'cat': 12, 'dog': 12})
    assert project.main([str(other), f'--output={made}', f'--pretrained={backbone}']) == 1
    assert f'is the project of {photos.resolve()}' in capsys.readouterr().err
    assert (made / 'report.html').read_bytes() == before


@pytest.mark.slow
def test_what_a_kill_or_the_user_took_away_is_made_again(photos, backbone, monkeypatch):
    made = finetune(photos, backbone, '--effort=quick')

    def killed(*_, **__):
        raise KeyboardInterrupt

    toy.class_folders(photos, {'rose': 1}, size=(64, 48), first=900)
    with monkeypatch.context() as patch:
        patch.setattr(loop, 'solve_head', killed)
        finetune(photos, backbone, '--effort=quick', code=130)
    (photos / 'rose/900.jpg').unlink()
    finetune(photos, backbone, '--effort=quick')
    data = dataset.open_records(made / 'records')
    assert sum(split.records for split in data.splits.values()) == 48
    assert Run(made).records['fingerprint'] == data.fingerprint
    (made / 'report.html').unlink()
    finetune(photos, backbone, '--effort=quick')
    assert (made / 'report.html').exists()


@pytest.mark.slow
def test_check_leaves_the_records_of_a_project_as_they_were_told_to_be(photos, backbone):
    made = finetune(photos, backbone, '--effort=quick', '--test_percent=20')
    before = dataset.open_records(made / 'records').fingerprint
    assert check.main([str(photos), f'--output={made}', f'--pretrained={backbone}', '--engine=tensorflow']) == 0
    assert dataset.open_records(made / 'records').fingerprint == before


@pytest.mark.slow
def test_a_run_that_is_done_outlasts_less_time_and_another_place(photos, backbone):
    made, moved = finetune(photos, backbone), photos.parent / 'moved'

    def saved_at(place) -> list[int]:
        return [path.stat().st_mtime_ns for path in sorted((place / 'last_blocks').glob('ckpt-*'))]

    before = saved_at(made)
    finetune(photos, backbone, '--minutes=0.1')
    assert saved_at(made) == before
    shutil.move(made, moved)
    (moved / 'report.html').unlink()
    assert project.main([str(photos), f'--output={moved}', f'--pretrained={backbone}', '--engine=tensorflow']) == 0
    assert saved_at(moved) == before


def test_a_wrong_flag_for_the_last_blocks_is_told_before_the_work(photos, backbone, capsys):
    finetune(photos, backbone, '--max_steps=4', '--epochs=2', code=2)
    assert 'Records' not in capsys.readouterr().err


def test_two_commands_do_not_work_on_one_project(photos, backbone, capsys):
    from finetune.projects.project import Project

    with Project(photos.parent / 'project').locked(photos):
        finetune(photos, backbone, code=1)
    assert 'another command' in capsys.readouterr().err
