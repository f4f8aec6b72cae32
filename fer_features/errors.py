"""What this package raises when the input, not the code, is at fault.

Every message is one line: the place, what was found, what was expected, what to do.
"""


class FerFeaturesError(Exception):
    """Base of all errors that a user can mend. The commands print it and exit with status 2.

    Examples
    --------
    >>> from fer_features import FerFeaturesError, read_faces
    >>> try:
    ...     read_faces("fer2013.csv")
    ... except FerFeaturesError as error:
    ...     print(error)
    fer2013.csv: no such file or folder, expected ... Check the path.
    """


class SourceError(FerFeaturesError):
    """A file or folder that cannot be read as faces, as labels or as images to classify."""


class BackboneError(FerFeaturesError):
    """A backbone that is unknown, or whose files are missing, damaged or of another network."""


class StoreError(FerFeaturesError):
    """An embeddings file that is missing, damaged, of another version, or in use."""


class TaskError(FerFeaturesError):
    """A classification task that is not well defined, or that the data cannot serve."""


class RunError(FerFeaturesError):
    """A run, comparison, head, report or export that cannot be read or written."""


class OptionError(FerFeaturesError, ValueError):
    """An option or parameter with a bad value; a ValueError too, as scikit-learn expects."""
