"""Which settings find small, faithful circuits, and at what cost: studies over settings. The only importer of optuna.

`bench` tries a setting at a checkpoint and `cost` counts its passes; `study` says what a study is and lists its jobs;
`answers` and `landscape` draw conclusions, which `conclude` puts together; `search` lets Optuna choose what to try
next, and keeps it in a `storage`.
"""
