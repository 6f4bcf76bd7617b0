/*
 * Files below the root of another process. Its user may choose what is there. So no
 * link is followed, also none on the way: an absolute one would lead into our own root. Nothing
 * is written there, and only regular files are opened: to open a device may do something.
 */
#ifndef MCPOOL_BENEATH_H
#define MCPOOL_BENEATH_H

#include <sys/stat.h>
#include <sys/types.h>

/* Finds the absolute PATH below the directory at the fd ROOT. Returns an fd opened with O_PATH;
 * -1, with errno set, when there is nothing, or a component of PATH is a link or "..". */
int beneath_find(int root, const char *path);

/* Opens the file at FD, which beneath_find() has returned, for reading. Fills FOUND. Returns
 * its fd; -1 when it is not a regular file of at least LEAST bytes, or may not be read. */
int beneath_open(int fd, off_t least, struct stat *found);

#endif
