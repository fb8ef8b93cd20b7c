"""The verb `dashboard`: a study in the browser, as a function."""

from collections.abc import Callable

from fissura.api.arguments import AnyPath, path_of


def dashboard(
    study: AnyPath,
    *,
    tensorboard_port: int | None = None,
    optuna_port: int | None = None,
    ready: Callable[[dict[str, str]], None] = lambda _: None,
) -> None:
    """Shows a study's trials in optuna-dashboard and its curves in TensorBoard, on this machine alone, until
    Ctrl-C or SIGTERM. Calls `ready` with the addresses of "tensorboard" and "optuna" when both answer; a port
    of None is any free one."""
    from fissura.studies.study import find_study
    from fissura.studies.viewers import show

    opened = find_study(path_of(study))
    opened.load()  # refuses a study that cannot be read
    show(opened, ports={"tensorboard": tensorboard_port, "optuna": optuna_port}, ready=ready)
