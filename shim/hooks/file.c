/*
 * The mode and the owner of the file behind an fd: fchmod(), fchown(), and the forms of both
 * with a path. They are not set back for the next user of a connection, so it is not kept. They
 * are set on the connection that stays at the fd.
 */
#include "hooks/hooks.h"

#include <fcntl.h>

static int ended(int fd, struct conn *conn, int result)
{
    track_change_ends(fd, conn, result == 0);
    return result;
}

HOOKED int fchmod(int fd, mode_t mode)
{
    struct conn *conn;

    if (PLAIN(fd))
        return real_fchmod(fd, mode);
    conn = track_change_begins(fd);
    return ended(fd, conn, real_fchmod(fd, mode));
}

HOOKED int fchown(int fd, uid_t uid, gid_t gid)
{
    struct conn *conn;

    if (PLAIN(fd))
        return real_fchown(fd, uid, gid);
    conn = track_change_begins(fd);
    return ended(fd, conn, real_fchown(fd, uid, gid));
}

/* With AT_EMPTY_PATH and an empty path they change the file of the fd (fchownat(2)). */
HOOKED int fchmodat(int fd, const char *path, mode_t mode, int flags)
{
    struct conn *conn;

    if (!(flags & AT_EMPTY_PATH) || PLAIN(fd))
        return real_fchmodat(fd, path, mode, flags);
    conn = track_change_begins(fd);
    return ended(fd, conn, real_fchmodat(fd, path, mode, flags));
}

HOOKED int fchownat(int fd, const char *path, uid_t uid, gid_t gid, int flags)
{
    struct conn *conn;

    if (!(flags & AT_EMPTY_PATH) || PLAIN(fd))
        return real_fchownat(fd, path, uid, gid, flags);
    conn = track_change_begins(fd);
    return ended(fd, conn, real_fchownat(fd, path, uid, gid, flags));
}
