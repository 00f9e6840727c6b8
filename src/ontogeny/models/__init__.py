"""Models: weights in the engine's form, checkpoints on disk, and the training of the ladder."""
