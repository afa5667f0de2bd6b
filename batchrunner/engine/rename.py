"""A rename that never replaces."""

from __future__ import annotations

import ctypes
import errno
import functools
import os
from collections.abc import Callable
from pathlib import Path

_NO_LINKS = frozenset(
    {errno.EPERM, errno.EACCES, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK, errno.EXDEV, errno.EINVAL}
)
_AT_FDCWD = -100
_RENAME_NOREPLACE = 1


def give_name(source: Path, target: Path) -> None:
    """Give a file another name, unless that exists. The old name may stay: the caller removes it.

    By a link; where the filesystem has none by renameat2(RENAME_NOREPLACE); where that is missing too, by
    looking first and renaming, which another program could race.

    Raises:
        FileExistsError: `target` exists; nothing was done.
        OSError: the disk failed.
    """
    try:
        os.link(source, target, follow_symlinks=False)
    except FileExistsError:
        raise
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
    else:
        return
    if not _renameat2(source, target):
        if os.path.lexists(target):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(target))
        os.rename(source, target)


@functools.cache
def _libc_renameat2() -> Callable[..., int] | None:
    try:
        function: Callable[..., int] = ctypes.CDLL(None, use_errno=True).renameat2
    except (AttributeError, OSError):
        return None
    return function


def _renameat2(source: Path, target: Path) -> bool:
    """Whether the kernel did it; False where it can't."""
    function = _libc_renameat2()
    if function is None:
        return False
    if function(_AT_FDCWD, os.fsencode(source), _AT_FDCWD, os.fsencode(target), _RENAME_NOREPLACE) == 0:
        return True
    number = ctypes.get_errno()
    if number in {errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP}:
        return False
    raise OSError(number, os.strerror(number), str(target))
