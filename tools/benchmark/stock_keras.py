"""The peer of the benchmark: transfer learning in stock Keras, as its documentation shows it.

    python -m tools.benchmark.stock_keras PHOTOS WEIGHTS      PHOTOS has train/CLASS and validation/CLASS

Frozen MobileNetV2, flip and rotation layers, dropout 0.2, Adam at 1e-3, `fit`. Nothing of this project is in it. The
last line is JSON: validation accuracy and seconds since the start after every epoch.
"""

import json
import sys
import time

STARTED = time.monotonic()

import keras  # noqa: E402 (its import is part of the time)

EPOCHS = 5


class Clock(keras.callbacks.Callback):
    def __init__(self):
        super().__init__()
        self.epochs = []

    def on_epoch_end(self, epoch, logs=None):
        self.epochs.append({'accuracy': logs['val_accuracy'], 'seconds': time.monotonic() - STARTED})


def main(photos: str, weights: str) -> None:
    keras.utils.set_random_seed(1)
    train, validation = (keras.utils.image_dataset_from_directory(
        f'{photos}/{split}', image_size=(224, 224), batch_size=32).prefetch(2) for split in ('train', 'validation'))
    backbone = keras.applications.MobileNetV2(include_top=False, weights=weights, input_shape=(224, 224, 3))
    backbone.trainable = False
    pictures = keras.Input((224, 224, 3))
    outputs = keras.layers.RandomFlip('horizontal')(pictures)
    outputs = keras.layers.RandomRotation(0.2)(outputs)
    outputs = keras.applications.mobilenet_v2.preprocess_input(outputs)
    outputs = keras.layers.GlobalAveragePooling2D()(backbone(outputs, training=False))
    outputs = keras.layers.Dense(5)(keras.layers.Dropout(0.2)(outputs))
    model = keras.Model(pictures, outputs)
    model.compile(optimizer=keras.optimizers.Adam(1e-3), metrics=['accuracy'],
                  loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    clock = Clock()
    model.fit(train, validation_data=validation, epochs=EPOCHS, callbacks=[clock], verbose=2)
    print(json.dumps({'keras': keras.__version__, 'epochs': clock.epochs}))


if __name__ == '__main__':
    main(*sys.argv[1:])
