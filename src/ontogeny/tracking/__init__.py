"""MLflow: a projection of the records that can be rebuilt at any time. The only importer of mlflow.

The records on disk are the truth. `publish` makes the store show them: it adds what is missing, leaves what is there,
marks what no longer belongs to the current settings, and clears what a killed publisher left behind.
"""

from ontogeny.tracking.content import Projection, settings_of
from ontogeny.tracking.health import Health, health_of
from ontogeny.tracking.publishing import PublishReport, publish
from ontogeny.tracking.store import Store, open_store, ui_command, view_addresses

__all__ = [
    "Health",
    "Projection",
    "PublishReport",
    "Store",
    "health_of",
    "open_store",
    "publish",
    "settings_of",
    "ui_command",
    "view_addresses",
]
