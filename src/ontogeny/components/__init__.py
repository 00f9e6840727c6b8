"""Head roles, a file each (METHODS 6)."""

from ontogeny.components import attention_roles, copy_suppression, copying, successor
from ontogeny.components.base import ROLES, Material, Role, Texts, holders, texts_of

__all__ = [
    "ROLES",
    "Material",
    "Role",
    "Texts",
    "attention_roles",
    "copy_suppression",
    "copying",
    "holders",
    "successor",
    "texts_of",
]
