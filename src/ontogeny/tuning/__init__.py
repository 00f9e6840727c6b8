"""Which settings find small, faithful circuits, and at what cost: studies over settings. The only importer of optuna.

`bench` tries a setting at a checkpoint, `study` says what a study is and runs its grid, `answers` draws conclusions,
`search` lets Optuna choose what to try next.
"""
