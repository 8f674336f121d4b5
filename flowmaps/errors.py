"""The failures that a user can mend, each with the program's exit code."""


class UsageError(Exception):
    """A wrong value in a config, a flag or a call: one line that says what, which value, and what to do."""

    exit_code = 1


class MissingError(Exception):
    """Data or a checkpoint that is not where the config says."""

    exit_code = 2


class NonFiniteError(Exception):
    """Training whose updates stay non-finite."""

    exit_code = 3
