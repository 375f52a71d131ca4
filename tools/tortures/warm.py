"""What every child needs, imported before it is forked; `--model=toy` is a network that builds in milliseconds."""

import os

os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')

import keras
import tensorflow

from finetune import gate, records, train, weights
from finetune.models import zoo
from tests import toy_net

zoo.NETS['toy'] = zoo.Net(toy_net.backbone, 16, zoo.MINUS_ONE_TO_ONE)

__all__ = ['gate', 'keras', 'records', 'tensorflow', 'train', 'weights']
