"""The subcommands of ``repix``, one module each.

A module has a docstring (its help), ``add_arguments(parser)`` and ``main(arguments) -> int``
(the exit code), and imports what is heavy inside ``main``.
"""
