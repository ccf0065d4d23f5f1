"""What xsmmconv raises when the mistake is not the caller's."""


class UnsupportedError(RuntimeError):
    """This machine, or this build of the library, cannot do what was asked; the message says why.

    The caller's own mistakes are ValueError (a wrong value) and TypeError (a wrong kind).

    Examples
    --------
    >>> import xsmmconv
    >>> issubclass(xsmmconv.UnsupportedError, RuntimeError)
    True
    """
