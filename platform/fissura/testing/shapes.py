"""The shapes that signatures state, checked at run time."""

from jaxtyping import install_import_hook


def check_shapes(*modules: str) -> None:
    """From now on, calls within the packages `modules`, by default fissura's models and losses, check their
    shapes. It holds for what is imported afterwards, and needs beartype.

    Raises:
        ModuleNotFoundError: when such a module is imported, where beartype is not installed.
    """
    install_import_hook([*(modules or ("fissura.models", "fissura.losses"))], "beartype.beartype")
