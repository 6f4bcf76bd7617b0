/*
 * What the kernel says of the socket at an fd: which socket it is (SO_COOKIE, Linux 4.12), and
 * what moved through it (TCP_INFO, tcp(7)).
 *
 * Functions without state: no lock, no wait, no cancellation point; errno is kept.
 */
#ifndef MCPOOL_SOCKID_H
#define MCPOOL_SOCKID_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "conn/conn.h"

struct tcp_info;

/* The kernel's name of the socket at FD. False when FD is no socket. One system call. */
bool sockid_cookie(int fd, uint64_t *cookie);

/* Whether FD names the socket of CONN. One system call. */
bool sockid_is_at(const struct conn *conn, int fd);

/* Whether FD certainly names something else, or nothing: not where the kernel does not tell.
 * One system call, another where it does not. */
bool sockid_is_elsewhere(const struct conn *conn, int fd);

/* Fills INFO, which the caller has set to zero, of the TCP socket at FD. Returns how many bytes
 * the kernel has filled; 0 when it says nothing. One system call. */
size_t sockid_tcp_info(int fd, struct tcp_info *info);

#endif
