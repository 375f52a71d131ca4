"""What a build can be told: one flag each."""

from finetune.building import plan
from finetune.console.command import Flags
from finetune.pictures import gate

SEED = 12345
MOST_SHARDS = 99_999  # Their names have five digits for it.


def add_flags(flags: Flags) -> None:
    flags.group('where')
    flags.choice('source', 'folders', tuple(plan.SOURCES), 'what the pictures lie in: folders of files; CSV files '
                 "of MNIST; CIFAR-10's binary batches; or a dataset that tensorflow-datasets prepared")
    flags.path('train_directory', None, 'folder with one folder of pictures a class; of mnist_csv and cifar10 a file, '
               'or the folder that it is in')
    flags.path('validation_directory', None, 'the same for validation pictures')
    flags.path('test_directory', None, 'the same for test pictures, which nothing looks at but '
                 '`finetune eval --subset=test`')
    flags.string('tfds', None, 'name of the dataset for --source=tfds')
    flags.path('tfds_dir', None, 'where it was prepared')
    flags.string('tfds_splits', None, "TRAIN,VALIDATION,TEST: the dataset's names for them, of which the last two may "
                 'be left out or empty (default: train, validation and test; where only one of these is there, it '
                 'validates)')
    flags.number('validation_percent', None, 'without a validation directory: how much of the pictures is kept for '
                 'validation: that share of each class, chosen by content, not by name or order (default: '
                 f'{plan.AUTOMATIC_VALIDATION_PERCENT:g}, but no more than {plan.MOST_VALIDATION:,} pictures; 0: none)',
                 least=0)
    flags.number('test_percent', 0, 'without a test directory: how much of the pictures is kept for a test, chosen by '
                 'content too; the validation pictures stay the same (0: none)', least=0)
    flags.path('group_near_duplicates', None, 'findings.csv of `finetune check`: what it found to be nearly the same '
               'picture goes to one split, where the content decides which')
    flags.path('output_directory', None, 'records to make; records that stand there are replaced')
    flags.path('labels_file', None, 'class folder names, one a line: line k is label k (default: all folders, sorted); '
                 "of mnist_csv names for the file's numbers from 0 on")
    flags.path('labels_csv', None, 'CSV file with the columns file and label, and perhaps split (train, validation, '
               'test): the pictures are the files that it lists, below --train_directory or beside it')
    flags.switch('overwrite', False, 'replace the output directory whatever is in it')
    flags.group('what is stored')
    flags.integer('max_side', 0, 'shrink pictures whose longer side exceeds this many pixels', least=0)
    flags.integer('short_side', 0, 'shrink pictures whose shorter side exceeds this many pixels: 299 is enough for '
                  'inception_v3, 224 for most', least=0)
    flags.integer('sixteen_bit_max', gate.SIXTEEN_BIT_MAX, 'the value that becomes white in pictures of 16 bits: 4095 '
                  'for data of 12 bits, which come out nearly black otherwise', least=1, most=gate.SIXTEEN_BIT_MAX)
    by_size = (f'one for {plan.SHARD_PICTURES:,} pictures or {plan.SHARD_BYTES // 10**6} MB, but at least '
               f'{plan.LEAST_SHARDS} of more than {plan.FEW_PICTURES:,} pictures, else {plan.FEW_SHARDS}')
    flags.integer('train_shards', None, f'number of training shards (default: {by_size})', least=1, most=MOST_SHARDS)
    flags.integer('validation_shards', None, 'number of validation shards (likewise)', least=1, most=MOST_SHARDS)
    flags.integer('test_shards', None, 'number of test shards (likewise)', least=1, most=MOST_SHARDS)
    flags.integer('seed', SEED, 'decides the order of the records')
    flags.group('what is let in')
    flags.integer('max_bytes', gate.Limits.max_bytes, 'reject larger files', least=1)
    flags.integer('max_pixels', gate.Limits.max_pixels, 'reject pictures of more pixels', least=1)
    flags.switch('no_symlinks', False, 'reject symbolic links')
    flags.switch('recursive', False, 'read folders inside class folders as part of the class')
    flags.switch('strict', False, 'fail, and change nothing, if any picture is skipped')
    flags.switch('fail_on_leak', False, 'fail, and change nothing, if a picture is in two splits')
    flags.group('how')
    flags.integer('num_threads', None, 'worker processes (default: one a core); the records do not depend on it',
                  least=1)
