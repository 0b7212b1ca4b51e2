"""The one exception that users are meant to read."""


class UserError(Exception):
    """Bad input: one line that says what is wrong and what to do. Commands print it and exit with status 2."""
