"""Turns a folder of labelled pictures into a good classifier, and says how far to trust it."""

import os

os.environ['KERAS_BACKEND'] = 'tensorflow'  # Before Keras is imported, whatever the user's keras.json says.
