"""The shapes in the signatures of networks and losses are checked at run time, here only."""

from jaxtyping import install_import_hook

install_import_hook(["fissura.models", "fissura.losses"], "beartype.beartype")
