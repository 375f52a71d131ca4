"""Where in a picture a class was seen: class activation maps (Zhou et al. 2016), exact for heads on averages."""

from collections.abc import Sequence

import numpy as np

from finetune.console.lazy import keras


def maps(model, views, classes: np.ndarray, among: Sequence[int]) -> np.ndarray | None:
    """What each place of a view says for a class: float32 [b, h, w]; one forward pass.

    Views [b, size, size, 3] in [0, 1], one class for each of them, int [b], out of those that may be answered. None
    where a network has left all places behind before it averages.
    """
    features = model.get_layer('backbone')(model.get_layer('pixel_range')(views), training=False)
    features = features if isinstance(features, (list, tuple)) else [features]
    if not have_places(features):
        return None
    kernel = keras.ops.take(head_of(model).kernel, among, axis=1)
    spoke = keras.ops.convert_to_numpy(evidence([keras.ops.cast(each, 'float32') for each in features], kernel))
    columns = np.array([list(among).index(each) for each in classes])
    return np.take_along_axis(spoke, columns[:, None, None, None], axis=-1)[..., 0]


def head_of(model):
    """The layer of a classifier that makes logits of averaged features."""
    return model.get_layer('head').get_layer('logits')


def have_places(feature_maps: Sequence) -> bool:
    return any(tuple(each.shape[1:3]) != (1, 1) for each in feature_maps)


def evidence(feature_maps: Sequence, kernel):
    """What each place adds to the logit of each class beyond what it adds to all of them: float32 [b, h, w, classes].

    Of the maps [b, h, w, c] that are averaged side by side, and the head's weights [sum of c, classes]. What is added
    to all classes alike moves no probability. The mean over the places is the logit without its bias, less the mean of
    all of these.
    """
    kernel = kernel - keras.ops.mean(kernel, axis=1, keepdims=True)
    starts = np.cumsum([0, *(each.shape[-1] for each in feature_maps)])
    of_layers = [keras.ops.conv(each, kernel[start:start + each.shape[-1]][None, None], data_format='channels_last')
                 for each, start in zip(feature_maps, starts, strict=False)]
    finest = max((tuple(each.shape[1:3]) for each in of_layers), key=np.prod)
    return sum(_spread(each, *finest) for each in of_layers)


def _spread(coarse, height: int, width: int):
    """[b, h, w, k] to [b, height, width, k], every place what lay on its area: whatever the sizes, the mean stays."""
    if tuple(coarse.shape[1:3]) == (height, width):
        return coarse
    rows, columns = (_overlaps(*sizes) for sizes in ((height, coarse.shape[1]), (width, coarse.shape[2])))
    return keras.ops.einsum('yh,bhwk,xw->byxk', rows, coarse, columns)


def _overlaps(new: int, old: int) -> np.ndarray:
    """float32 [new, old]: which share of each of so many equal parts of a line lies on each of the old ones."""
    starts, old_starts = np.arange(new)[:, None] / new, np.arange(old) / old
    shared = np.minimum(starts + 1 / new, old_starts + 1 / old) - np.maximum(starts, old_starts)
    return (np.maximum(shared, 0) * new).astype(np.float32)
