"""`python -m tools.build_tfrecords …` is `finetune build …`, under the name that the original gave it."""

import sys

from finetune.build import main

if __name__ == '__main__':
    sys.exit(main())
