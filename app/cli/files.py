"""Files that commands write, never through a symbolic link that another user may have created."""

import errno
import os
import stat

SYMBOLIC_LINK_MESSAGE = "It is a symbolic link. Specify the file that it points to"


def no_symlink_opener(path: str, flags: int) -> int:
    """Open a file for `open`, and return its descriptor: a new or truncated regular file, or a pipe or a device.

    A symbolic link is followed only if it does not point to a regular file: `/dev/stdout` is such a link.

    Raises:
        OSError: the file cannot be opened, or is a symbolic link to a regular file.
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
    # checks what was opened, not what the name refers to by now
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        if is_link:
            os.close(descriptor)
            raise OSError(errno.ELOOP, SYMBOLIC_LINK_MESSAGE)
        os.ftruncate(descriptor, 0)
    return descriptor
