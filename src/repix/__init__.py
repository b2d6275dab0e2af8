"""repix: image-to-image translation that can be reproduced, traced and compared.

The rooms, and the direction in which they may call each other, are drawn in
``docs/architecture.md``; importing this package imports nothing heavy.
"""

__version__ = "0.1.0"
