"""The one error of the inner rings for bytes that do not mean what they should."""


class WireError(ValueError):
    """Bytes that cannot be read, or a value that cannot be written. The text says which field and why."""
