"""Errors that name the file, what was found, what was expected and what to do."""


class FerError(Exception):
    """Base of every error that this package raises on purpose."""


class DataError(FerError):
    """A dataset that is missing, incomplete, malformed or not what it claims to be."""


class ConfigError(FerError):
    """A profile, model, parameter or command-line option that does not exist or does not fit."""


class ResultsError(FerError):
    """A run folder that is missing or lacks files."""


class TrainingError(FerError):
    """A training that cannot go on."""
