/*
 * What was not found when the counters were read.
 */
#ifndef MCPOOL_MISSING_H
#define MCPOOL_MISSING_H

#include "cli/processes.h"

/* Says on stderr which processes are not among PROCESSES and why: those that were asked for, N
 * at PIDS, and those that cannot be read or shown. */
void missing_tell(const struct processes *processes, const int *pids, size_t n);

#endif
