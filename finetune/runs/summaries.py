"""What TensorBoard shows of a run or of an evaluation."""

import os
from pathlib import Path

import numpy as np

from finetune.console.lazy import tf


class Summaries:
    """What TensorBoard shows of `directory`. TensorBoard itself need not be installed to write it."""

    BUCKETS = 30

    def __init__(self, directory: Path):
        self._writer = tf.summary.create_file_writer(os.fsencode(directory))

    def scalars(self, step: int, values: dict[str, float]) -> None:
        self._write('scalars', step, {tag: tf.constant(value, tf.float32) for tag, value in values.items()})

    def histograms(self, step: int, values: dict[str, np.ndarray]) -> None:
        self._write('histograms', step, {tag: self._buckets(array) for tag, array in values.items()})

    def _buckets(self, array: np.ndarray):
        """[buckets, 3], left and right edge and count of each: what the plugin `histograms` reads."""
        finite = array[np.isfinite(array)].astype(np.float64)  # In float32, edges of a narrow range fall together.
        counts, edges = np.histogram(finite, self.BUCKETS)
        return tf.constant(np.stack([edges[:-1], edges[1:], counts], axis=1), tf.float64)

    def _write(self, plugin: str, step: int, tensors: dict) -> None:
        metadata = tf.compat.v1.SummaryMetadata(
            plugin_data=tf.compat.v1.SummaryMetadata.PluginData(plugin_name=plugin))
        with self._writer.as_default():
            for tag, tensor in tensors.items():
                tf.summary.write(tag, tensor, step=step, metadata=metadata)
        self._writer.flush()
