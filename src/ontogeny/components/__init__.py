"""Head roles, a file each (METHODS 6)."""

from ontogeny.components.base import ROLES, Material, Role, Texts, holders

__all__ = ["ROLES", "Material", "Role", "Texts", "holders"]
