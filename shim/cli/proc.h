/*
 * What /proc tells of a process.
 */
#ifndef MCPOOL_PROC_H
#define MCPOOL_PROC_H

#include <stddef.h>
#include <stdint.h>

/* Reads /proc/PID/NAME into BYTES, with a final NUL, cut to what fits. Returns the length; 0
 * when it cannot be read. */
size_t proc_read(int pid, const char *name, char *bytes, size_t room);

/* When the process PID started, in clock ticks since boot; 0 when there is none. */
uint64_t proc_start(int pid);

#endif
