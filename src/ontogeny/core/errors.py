"""The errors a user can cause, apart from the errors that are ours."""


class OntogenyError(Exception):
    """Something the user can mend: the message says what was wrong, what was expected and what to do.

    The command line prints it without a traceback and exits with code 2.
    """


class ImpossibleRequest(OntogenyError):
    """A data set, circuit or model was asked for that cannot exist; the message gives the reason and the counts."""


class BadCheckpoint(OntogenyError):
    """A checkpoint cannot be read or holds numbers that are not finite; the message names the file."""


class NotFinite(BadCheckpoint):
    """Weights that are not finite; `count` says how many numbers of the model."""

    def __init__(self, message: str, count: int) -> None:
        super().__init__(message)
        self.count = count


class UnsupportedModel(OntogenyError):
    """A model whose residual stream is not the sum of its writers; says where and by how much."""
