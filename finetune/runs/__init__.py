"""What a run is: recipe, labels, checkpoints. Whoever only reads a run needs nothing of `training`."""
