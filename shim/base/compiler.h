/*
 * Functions that a connection passed from user to user never meets: the compiler lays them, and
 * every branch that leads to one, out of the way. After each system call the processor's caches
 * are cold, so that the length of the path counts.
 */
#ifndef MCPOOL_COMPILER_H
#define MCPOOL_COMPILER_H

#define COLD __attribute__((cold))

#endif
