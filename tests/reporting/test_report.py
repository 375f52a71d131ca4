from finetune.records import dataset
from finetune.reporting import report
from finetune.reporting.contents import Contents
from tests import toy_records


def test_a_project_of_records_alone_has_a_report(tmp_path):
    data = dataset.open_records(toy_records.write(tmp_path / 'data'))
    report.write(tmp_path / 'report.html', Contents('toys', data))
    assert '<h1>toys</h1>' in (tmp_path / 'report.html').read_text()
