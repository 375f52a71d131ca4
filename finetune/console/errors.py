"""What can go wrong, as one sentence for the user and an exit code for scripts."""


class Error(Exception):
    """Its text is shown as it is: what went wrong, with which file, what was expected, what to do."""

    exit_code = 1


class UsageError(Error):
    """The command line cannot be carried out as it was typed."""

    exit_code = 2


class Diverged(Error):
    """The loss is no longer finite."""

    exit_code = 3


class RequirementMissed(Error):
    """A figure that --require names was not reached, or one that an export must have."""

    exit_code = 3


class Stopped(Error):
    """A signal ended the work, after what was done had been saved."""

    def __init__(self, message: str, signal_number: int):
        super().__init__(message)
        self.exit_code = 128 + signal_number


class OutputLost(Stopped):
    """Whoever read the output has seen enough, or the terminal is gone: nobody is left to tell."""

    def __init__(self, signal_number: int):
        super().__init__('', signal_number)


class Reject(Exception):
    """One picture that cannot be used. It is counted and listed, and never ends the work on the others."""

    def __init__(self, reason: str, detail: str = ''):
        super().__init__(reason, detail)  # Both, so that a Reject survives the way back from a worker process.
        self.reason = reason
        self.detail = detail

    def __str__(self) -> str:
        return f'{self.reason}: {self.detail}' if self.detail else self.reason
