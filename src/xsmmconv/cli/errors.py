"""What a command raises when it cannot be carried out as given."""


class UsageError(Exception):
    """The message is one sentence for the user; the exit code is 2."""
