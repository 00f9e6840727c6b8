"""What is wrong with the checkpoints of a study: a table, and whether there is anything."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ontogeny.core.audit import Finding
from ontogeny.records import read_member
from ontogeny.stages.study import Study

if TYPE_CHECKING:
    from rich.table import Table


def findings(study: Study) -> dict[str, tuple[Finding, ...]]:
    """Member -> findings.

    Raises:
        OntogenyError: the study has not been run.
    """
    return {member: read_member(study.analyses(member)).findings for member in study.params.suite.members}


def audit_table(found: dict[str, tuple[Finding, ...]]) -> Table:
    """A row a finding."""
    from ontogeny.stages.terminal import new_table

    table = new_table("Checkpoints that are not what they should be", "member", "step", "fault")
    table.add_column("")
    for member, each in found.items():
        for finding in each:
            table.add_row(member, str(finding.step), finding.fault, finding.detail)
    return table


def print_audit(study: Study) -> bool:
    """Print the findings; whether there are none."""
    from rich.console import Console

    found = findings(study)
    if not any(found.values()):
        return True
    Console(width=None).print(audit_table(found))
    return False
