"""The exceptions that users are meant to read, and the exit statuses that a job is not started again on."""

BAD_INPUT = 2
DIVERGED = 3  # the same steps would diverge again
STUCK = 4  # two sessions of a run failed at the same step


class UserError(Exception):
    """Bad input: one line that says what is wrong and what to do. Commands print it and exit with status 2."""


class Stopped(Exception):
    """The orderly end of a command before its work is done. Commands print the line and exit with the status."""

    def __init__(self, message: str, status: int):
        super().__init__(message)
        self.status = status
