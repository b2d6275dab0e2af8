"""The version of repix. A file of its own: a stage whose outs do not carry it does not depend on it."""

VERSION = "0.1.0"
