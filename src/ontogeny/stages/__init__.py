"""One thin module a DVC stage: params -> load -> call -> write. What a stage reads and writes is in dvc.yaml."""
