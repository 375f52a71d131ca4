"""How a run is trained: the start table, what the loop runs on, optimizers, towers, the journal."""
