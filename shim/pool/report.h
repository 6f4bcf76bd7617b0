/*
 * What the log says of connections that are not pooled any more: the reason, and the place in
 * the dialogue at which the tracker gave up, without keys and values; and the summary at exit.
 *
 * At the level `info` the same reason is told once a second at most, with the number of the
 * others. errno is kept; nothing is written unless a log is asked for.
 */
#ifndef MCPOOL_REPORT_H
#define MCPOOL_REPORT_H

#include "conn/conn.h"
#include "base/reasons.h"

/* CONN is not kept at close(), or was kept and is discarded. It is in nobody else's hands. */
void report_refused(const struct conn *conn, enum reason reason);
void report_discarded(const struct conn *conn, enum reason reason);

/* The summary at exit: what was counted of each endpoint. Without the pool's lock. */
void report_all(void);

#endif
