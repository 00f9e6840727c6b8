"""The tasks and the ladder's corpus. Importing this package registers the four tasks."""

from ontogeny.tasks import gendered_pronoun, greater_than, ioi, sva
from ontogeny.tasks.base import Task, get_task, register, task_names

__all__ = ["Task", "gendered_pronoun", "get_task", "greater_than", "ioi", "register", "sva", "task_names"]
