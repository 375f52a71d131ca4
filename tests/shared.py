"""Real photos and published weights, where the machine has them."""

from pathlib import Path

import pytest

SHARED = Path(__file__).parents[2] / 'shared'
WEIGHTS = SHARED / 'weights'
FLOWERS = SHARED / 'data/flower_photos'

needs_weights = pytest.mark.skipif(not WEIGHTS.is_dir(), reason='no published ImageNet weights beside the project')
needs_flowers = pytest.mark.skipif(not FLOWERS.is_dir(), reason='no flower photos beside the project')
