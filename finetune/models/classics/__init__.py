"""The small classics, in plain Keras."""
