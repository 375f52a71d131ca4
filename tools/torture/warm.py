"""What every child needs, imported before it is forked; `--model=toy` is a network that builds in milliseconds."""

import os

os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')

import keras
import tensorflow

from finetune import train
from finetune.models import weights, zoo
from finetune.pictures import gate
from finetune.records import dataset
from tests import toy_net

zoo.NETS['toy'] = zoo.Net(toy_net.backbone, 16, zoo.MINUS_ONE_TO_ONE)

__all__ = ['dataset', 'gate', 'keras', 'tensorflow', 'train', 'weights']
