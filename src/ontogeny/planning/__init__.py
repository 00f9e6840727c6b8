"""What a study will take, before it is run: passes, memory, disk and time, from its params and the models' shapes."""
