/*
 * What the log says of connections that are not pooled any more: the reason, and the place in
 * the dialogue at which the tracker gave up, without keys and values. And the summary at exit.
 *
 * At the level `info` the same reason is logged once a second at most, with how many others
 * there were. errno is kept; nothing is written unless a log was asked for.
 */
#ifndef MCPOOL_REPORT_H
#define MCPOOL_REPORT_H

#include "conn/conn.h"
#include "base/reasons.h"

/* CONN is not kept at close() for REASON, or was kept and is discarded. The caller is the only
 * one with CONN. */
void report_refused(const struct conn *conn, enum reason reason);
void report_discarded(const struct conn *conn, enum reason reason);

/* The summary at exit: the counters of each endpoint. To be called without the pool's lock. */
void report_all(void);

#endif
