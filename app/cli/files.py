"""Files that commands write: never through somebody else's symbolic link."""

import errno
import os
import stat

SYMBOLIC_LINK_MESSAGE = "It is a symbolic link. Name the file that it leads to"


def no_symlink_opener(path: str, flags: int) -> int:
    """The `opener` of a file that is written anew, or of a pipe or a device; made where it is missing.

    A link is followed only to what is no regular file: `/dev/stdout` is one.

    Raises:
        OSError: it cannot be opened, or is a link to a file.
    """
    base_flags = flags & ~(os.O_CREAT | os.O_TRUNC)
    try:
        descriptor = os.open(path, base_flags | os.O_CREAT | os.O_NOFOLLOW, 0o666)
        is_link = False
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        descriptor = os.open(path, base_flags)
        is_link = True
    # of what was opened, not of what the name leads to by now
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        if is_link:
            os.close(descriptor)
            raise OSError(errno.ELOOP, SYMBOLIC_LINK_MESSAGE)
        os.ftruncate(descriptor, 0)
    return descriptor
