"""The errors that a user sees as one line."""


class RoamlabError(Exception):
    """Something the user can act on: the message is one line that names what is wrong and the remedy."""


class Unsupported(RoamlabError):
    """The kernel or the machine lacks a feature that this run needs: a verdict, not a failure."""
