"""repix: image-to-image translation that can be reproduced, traced and compared.

Three lines use a model (``docs/export.md``)::

    import repix
    model = repix.load("exports/sample-pix2pix_small-0")
    image = model.translate("label.png")

``docs/architecture.md`` says what each package does and which other packages it may import;
importing this one imports nothing: what is named here comes from :mod:`repix.api` when it is used.
"""

import importlib
from typing import TYPE_CHECKING

__all__ = ["Model", "UserError", "load", "results", "train"]

if TYPE_CHECKING:
    from repix.api import Model, UserError, load, results, train
else:  # a type checker shall not think that there is every name

    def __getattr__(name: str):
        """Return a public name, importing it now."""
        if name in __all__:
            return getattr(importlib.import_module("repix.api"), name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}; it has {', '.join(__all__)}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
