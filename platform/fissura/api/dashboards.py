"""The verb `dashboard`: a study in the browser, as a function."""

from collections.abc import Callable

from fissura.api.given import AnyPath, path_of


def dashboard(
    study: AnyPath,
    *,
    tensorboard_port: int | None = None,
    optuna_port: int | None = None,
    ready: Callable[[dict[str, str]], None] = lambda _: None,
) -> None:
    """Shows a study's trials in optuna-dashboard and its curves in TensorBoard, on this machine alone, until
    Ctrl-C or SIGTERM. `ready` is told the addresses of "tensorboard" and "optuna" when both answer; ports
    that are None are free ones."""
    from fissura.studies.study import find_study
    from fissura.studies.viewers import show

    found = find_study(path_of(study))
    found.load()  # what cannot be opened is refused here
    show(found, ports={"tensorboard": tensorboard_port, "optuna": optuna_port}, ready=ready)
