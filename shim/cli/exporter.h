/*
 * The HTTP server of mcpool metrics --listen.
 */
#ifndef MCPOOL_EXPORTER_H
#define MCPOOL_EXPORTER_H

/* Listens at WHERE, which is [ADDRESS:]PORT, with an IPv6 address in brackets. Returns the fd;
 * -1, with errno, on failure. */
int exporter_listen(const char *where);

/* Serves the metrics at the fd LISTENING. Returns an exit code, and only on failure. */
int exporter_serve(int listening);

#endif
