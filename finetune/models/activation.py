"""Where in a picture a class was seen: class activation maps (Zhou et al. 2016), exact for heads on averages."""

import numpy as np

from finetune.console.lazy import keras


def maps(model, views, classes: np.ndarray) -> np.ndarray | None:
    """What each place of a view adds to the logit of a class: float32 [b, h, w]; one forward pass.

    Views [b, size, size, 3] in [0, 1], one class for each of them, int [b]. The mean of a map and the bias of its class
    make the logit. None where a network has left all places behind before it averages.
    """
    features = model.get_layer('backbone')(model.get_layer('pixel_range')(views), training=False)
    features = [keras.ops.convert_to_numpy(keras.ops.cast(each, 'float32'))
                for each in (features if isinstance(features, (list, tuple)) else [features])]
    if all(each.shape[1:3] == (1, 1) for each in features):
        return None
    weights = model.get_layer('head').get_layer('logits').kernel.numpy()[:, classes]  # [c, b]
    ends = np.cumsum([each.shape[-1] for each in features])[:-1]
    of_layers = [np.einsum('bhwc,cb->bhw', *pair) for pair in zip(features, np.split(weights, ends), strict=True)]
    finest = max((each.shape[1:] for each in of_layers), key=np.prod)
    return sum(_spread(each, *finest) for each in of_layers)


def _spread(coarse: np.ndarray, height: int, width: int) -> np.ndarray:
    """[b, h, w] to [b, height, width], every place what lay on its area: whatever the sizes, the mean stays."""
    rows, columns = (_overlaps(*sizes) for sizes in ((height, coarse.shape[1]), (width, coarse.shape[2])))
    return np.einsum('yh,bhw,xw->byx', rows, coarse, columns)


def _overlaps(new: int, old: int) -> np.ndarray:
    """float32 [new, old]: which share of each of so many equal parts of a line lies on each of the old ones."""
    starts, old_starts = np.arange(new)[:, None] / new, np.arange(old) / old
    shared = np.minimum(starts + 1 / new, old_starts + 1 / old) - np.maximum(starts, old_starts)
    return (np.maximum(shared, 0) * new).astype(np.float32)
