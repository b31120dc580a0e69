"""The errors that reach a user: each says what is wrong and what to do about it."""

import unicodedata

_CONTROL = ("Cc", "Cf", "Cs", "Zl", "Zp")


class NebulaError(Exception):
    """Base of every error that the package raises on purpose."""


class ImageError(NebulaError):
    """A file or a byte string can't be used as a picture."""


class SourceError(NebulaError):
    """A source of images can't be had, or its manifest is wrong."""


class CatalogueError(NebulaError):
    """The catalogue can't be read, or a name is not in it."""


class BackboneError(NebulaError):
    """A feature extractor can't be fetched, loaded or used."""


class CacheError(NebulaError):
    """The cache can't be written, or what lies in it is damaged."""


class ModelError(NebulaError):
    """An exported classifier is missing, damaged or of another version."""


class LeakageError(NebulaError):
    """A nebula, or a copy of a picture, stands on both sides of a split."""


class PipelineError(NebulaError):
    """A notebook is missing, was given an unknown parameter, or failed."""


class ClusterError(NebulaError):
    """A Dask cluster can't be reached, or some of its tasks failed for good."""


def make_printable(text: str) -> str:
    """Return a text whose control and direction-changing characters are escaped.

    File names may hold any: on a terminal they could move its cursor, set its title or
    hide what is printed.
    """
    return "".join(
        c.encode("unicode_escape").decode()
        if unicodedata.category(c) in _CONTROL
        else c
        for c in text
    )
