"""Head roles, a file each (METHODS 6)."""

from ontogeny.components import attention_roles, copy_suppression, copying, s_inhibition, successor
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
    "s_inhibition",
    "successor",
    "texts_of",
]
