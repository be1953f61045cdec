"""The experiments that come with roamlab: every module here with an EXPERIMENT is one. A file of your own works as well."""

import importlib
import importlib.util
import pkgutil
from pathlib import Path

from experiments.errors import RoamlabError
from experiments.model import Experiment


def load_all() -> dict[str, Experiment]:
    """Every experiment of the catalogue by name."""
    found = {}
    for module_info in pkgutil.iter_modules(__path__):
        experiment = getattr(importlib.import_module(f"{__name__}.{module_info.name}"), "EXPERIMENT", None)
        if isinstance(experiment, Experiment):
            found[experiment.name] = experiment
    return found


def load(name: str) -> Experiment:
    """An experiment of the catalogue, or the one in the file `name` when that ends in .py.

    Raises RoamlabError that lists the valid names, or names file and line of what is wrong in the file.
    """
    if name.endswith(".py"):
        return _load_file(Path(name))
    experiments = load_all()
    if name not in experiments:
        raise RoamlabError(f"no experiment {name!r}; there are: {', '.join(sorted(experiments))}, or a file that ends in .py")
    return experiments[name]


def _load_file(path: Path) -> Experiment:
    if not path.is_file():
        raise RoamlabError(f"{path}: no such file")
    spec = importlib.util.spec_from_file_location(f"roamlab_user_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise RoamlabError(f"{path}: cannot be loaded as Python")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except SyntaxError as error:
        raise RoamlabError(f"{path}: line {error.lineno}: {error.msg}") from error
    except Exception as error:  # the user's code: whatever is wrong there is named with its line
        line = _line_in(path, error)
        what = str(error) if isinstance(error, RoamlabError) else f"{type(error).__name__}: {error}"
        raise RoamlabError(f"{path}: line {line}: {what}") from error
    experiment = getattr(module, "EXPERIMENT", None)
    if not isinstance(experiment, Experiment):
        raise RoamlabError(f"{path}: defines no EXPERIMENT = Experiment(...)")
    return experiment


def _line_in(path: Path, error: BaseException) -> int | str:
    """The last line of the user's file that the error passed through."""
    line: int | str = "?"
    trace = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == str(path):
            line = trace.tb_lineno
        trace = trace.tb_next
    return line
