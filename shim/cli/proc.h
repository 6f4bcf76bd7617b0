/*
 * What /proc tells of a process.
 */
#ifndef MCPOOL_PROC_H
#define MCPOOL_PROC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Reads /proc/PID/NAME into BYTES, with a final NUL, cut to what fits. Returns the length; 0
 * when it cannot be read. */
size_t proc_read(int pid, const char *name, char *bytes, size_t room);

/* When the process PID started, in clock ticks since boot; 0 when there is none. */
uint64_t proc_start(int pid);

/* Whether there is no process PID, or none any more. */
bool proc_is_gone(int pid);

/* Looks for a file with PART in its name that the process PID has mapped. 1: there is one, and
 * its name is in PATH, which has ROOM bytes; 0: there is none; -1: that may not be read. */
int proc_find_mapped(int pid, const char *part, char *path, size_t room);

#endif
