"""Opens the files that commands write.

A symbolic link to a regular file is rejected, because another user may have created it.
"""

import errno
import os
import stat

SYMBOLIC_LINK_MESSAGE = "It is a symbolic link. Specify the file that it points to"


def no_symlink_opener(path: str, flags: int) -> int:
    """Open a file for writing, and return its file descriptor. Pass this function as the `opener` of `open`.

    The file may be a pipe or a device. A regular file is created, or truncated if it exists. A symbolic link is
    followed only if it does not point to a regular file. For example, `/dev/stdout` may be such a link.

    Raises:
        OSError: the file cannot be opened, or the path is a symbolic link to a regular file.
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
    # checks the file that was opened, because the name may refer to a different file by now
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        if is_link:
            os.close(descriptor)
            raise OSError(errno.ELOOP, SYMBOLIC_LINK_MESSAGE)
        os.ftruncate(descriptor, 0)
    return descriptor
