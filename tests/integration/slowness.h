/*
 * Machines on which everything takes longer.
 */
#ifndef MCPOOL_TEST_SLOWNESS_H
#define MCPOOL_TEST_SLOWNESS_H

/* How many times longer everything may take here, as on an emulated machine: TEST_SLOWNESS,
 * or 1.
 */
int slowness(void);

#endif
