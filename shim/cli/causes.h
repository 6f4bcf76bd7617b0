/*
 * Why a process shows no counters.
 */
#ifndef MCPOOL_CAUSES_H
#define MCPOOL_CAUSES_H

#include <stdio.h>

/* Says on TO, in lines that begin with four blanks, why the process PID shows no counters, and
 * what to do about it. Reads its environment as it was when it started, its connections, and
 * the directories as it sees them. */
void causes_tell(int pid, FILE *to);

#endif
