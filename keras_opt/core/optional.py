"""Optional packages, imported on first use with the pip line that brings them."""

import importlib
from types import ModuleType


def require(module: str, *, extra: str | None = None) -> ModuleType:
    """Import and return `module`.

    Args:
        module: Dotted name, for example `"ai_edge_quantizer"`.
        extra: The extra of keras_opt that installs it; `None` for a package of the default install.

    Raises:
        ImportError: The package is missing; the message is the exact pip line.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        target = f"keras_opt[{extra}]" if extra else "keras_opt"
        raise ImportError(
            f'keras_opt needs `{module}` for this, which could not be imported ({error}). Run: pip install "{target}"'
        ) from error
