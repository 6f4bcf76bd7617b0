/*
 * The counters of all processes in the text format of Prometheus.
 */
#ifndef MCPOOL_EXPOSITION_H
#define MCPOOL_EXPOSITION_H

#include <stdio.h>

/* Reads the counters and prints them on TO. Without memory it ends the program. */
void exposition_print(FILE *to);

#endif
