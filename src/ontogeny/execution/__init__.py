"""Jobs with fingerprints, the cache of finished jobs, locks, worker processes. Importing this is cheap: no torch."""
