"""`python -m tools.build_tfrecords …` is `finetune build …`, under the name that the original gave it."""

import sys

if __name__ == '__main__':
    from finetune.build import main

    sys.exit(main())
