"""Whether the algorithm behind a behaviour stays the same (METHODS 7, 8.5)."""
