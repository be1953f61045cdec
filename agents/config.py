"""Configuration files of agents: TOML, checked completely before anything happens."""

import tomllib
from collections.abc import Mapping, Sequence
from typing import Any


class ConfigError(ValueError):
    """One line: file, field, what is wrong and what to write instead."""


class Table:
    """One table of a configuration file. Every field is asked for by type; `finish` refuses what nobody asked for."""

    def __init__(self, file: str, where: str, values: Mapping[str, Any]) -> None:
        self.file, self.where, self._values = file, where, dict(values)
        self._asked: list[str] = []

    def error(self, field: str, text: str) -> ConfigError:
        """The error for a field of this table."""
        return ConfigError(f"{self.file}: {self.where}{field}: {text}")

    def _get(self, field: str, kind: type | tuple[type, ...], word: str, default: Any) -> Any:
        self._asked.append(field)
        value = self._values.get(field, default)
        if value is ...:
            raise self.error(field, f"is missing: must be {word}")
        if value is not default and (not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool)):
            raise self.error(field, f"is {value!r}: must be {word}")
        return value

    def has(self, field: str) -> bool:
        """Is the field written?"""
        return field in self._values

    def text(self, field: str, default: Any = ...) -> Any:
        """A text; without default it must be there."""
        return self._get(field, str, "a text in quotes", default)

    def flag(self, field: str, default: Any = ...) -> bool:
        """true or false."""
        return bool(self._get(field, bool, "true or false", default))

    def number(self, field: str, low: int, high: int, default: Any = ...) -> int:
        """A whole number from `low` to `high`."""
        word = f"a whole number from {low} to {high}"
        value = self._get(field, int, word, default)
        if value is not default and not low <= value <= high:
            raise self.error(field, f"is {value!r}: must be {word}")
        return int(value)

    def real(self, field: str, low: float, high: float, default: Any = ...) -> float:
        """A number from `low` to `high`, whole or not."""
        word = f"a number from {low:g} to {high:g}"
        value = self._get(field, (int, float), word, default)
        if value is not default and not low <= value <= high:
            raise self.error(field, f"is {value!r}: must be {word}")
        return float(value)

    def choice(self, field: str, valid: Sequence[str], default: Any = ...) -> str:
        """One of several words."""
        word = "one of " + ", ".join(f'"{item}"' for item in valid)
        value = self._get(field, str, word, default)
        if value not in valid:
            raise self.error(field, f"is {value!r}: must be {word}")
        return str(value)

    def texts(self, field: str, default: Any = ...) -> list[str]:
        """A list of texts."""
        value = self._get(field, list, "a list of texts", default)
        if not all(isinstance(item, str) for item in value):
            raise self.error(field, f"is {value!r}: must be a list of texts")
        return list(value)

    def items(self, field: str, kinds: tuple[type, ...], word: str) -> list[Any]:
        """A list whose items are of some types; empty when it is not there. `word` says what it should be."""
        value = self._get(field, list, word, [])
        if not all(isinstance(item, kinds) and not isinstance(item, bool) for item in value):
            raise self.error(field, f"is {value!r}: must be {word}")
        return list(value)

    def tables(self, field: str) -> "list[Table]":
        """A list of tables, [[field]]."""
        value = self._get(field, list, f"tables: [[{field}]]", [])
        if not all(isinstance(item, dict) for item in value):
            raise self.error(field, f"must be tables: [[{field}]]")
        return [Table(self.file, f"{self.where}{field}[{number}].", item) for number, item in enumerate(value)]

    def table(self, field: str) -> "Table":
        """A table, [field]; empty when it is not there."""
        return Table(self.file, f"{self.where}{field}.", self._get(field, dict, f"a table: [{field}]", {}))

    def finish(self) -> None:
        """Raise ConfigError for a field that nobody asked for."""
        for field in self._values:
            if field not in self._asked:
                raise self.error(field, f"is not known here: valid are {', '.join(self._asked)}")


def load(path: str) -> Table:
    """The top table of a file. Raises ConfigError when it cannot be read or is no TOML."""
    try:
        with open(path, "rb") as file:
            return Table(path, "", tomllib.load(file))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: is no TOML: {error}") from None
