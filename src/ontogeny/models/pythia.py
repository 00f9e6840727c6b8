"""Which repository of EleutherAI holds a member of the Pythia family (METHODS 1.1, 1.4).

A member is ``SIZE-s0``, ``SIZE-sN`` for the seeds (PolyPythias), or ``SIZE.VARIANT-sN``:

    160m-s0           pythia-160m                160m.weight-s1         pythia-160m-weight-seed1
    160m-s3           pythia-160m-seed3          160m.data-s1           pythia-160m-data-seed1
    160m.deduped-s0   pythia-160m-deduped        160m.attndropout-s0    pythia-160m-attndropout
"""

from __future__ import annotations

from difflib import get_close_matches

from ontogeny.core.errors import OntogenyError

SIZES = ("14m", "31m", "70m", "160m", "410m", "1b", "1.4b", "2.8b", "6.9b", "12b")
SEEDED = {size: range(1, 10) for size in ("14m", "31m", "70m", "160m", "410m")}
DEDUPED = ("70m", "160m", "410m", "1b", "1.4b", "2.8b", "6.9b", "12b")
DROPOUTS = ("attndropout", "hiddendropout", "alldropout")
"""Of 160m."""
PART_SEEDS = range(1, 4)
"""Of 160m: only the seed of the weights, or only that of the data."""


def repositories() -> dict[str, str]:
    """Member -> repository, all that there are."""
    found = {f"{size}-s0": f"pythia-{size}" for size in SIZES}
    found |= {f"{size}-s{seed}": f"pythia-{size}-seed{seed}" for size, seeds in SEEDED.items() for seed in seeds}
    found |= {f"{size}.deduped-s0": f"pythia-{size}-deduped" for size in DEDUPED}
    found |= {f"160m.{kind}-s0": f"pythia-160m-{kind}" for kind in DROPOUTS}
    found |= {f"160m.{p}-s{seed}": f"pythia-160m-{p}-seed{seed}" for p in ("weight", "data") for seed in PART_SEEDS}
    return {member: f"EleutherAI/{name}" for member, name in found.items()}


def repository(member: str) -> str:
    """The repository of a member.

    Raises:
        OntogenyError: Pythia has no such member; the message names the nearest ones.
    """
    known = repositories()
    if member not in known:
        near = get_close_matches(member, known, n=5, cutoff=0.3)
        raise OntogenyError(
            f"suite.members: there is no Pythia {member!r}. Nearest: {', '.join(near)}. Sizes: {', '.join(SIZES)}; "
            "seeds -s1 to -s9 up to 410m; SIZE.deduped-s0; 160m.weight-sN, 160m.data-sN, 160m.attndropout-s0 and so on."
        )
    return known[member]
