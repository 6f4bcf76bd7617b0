/*
 * Check-in: the sequence by which a connection leaves the program, at close(), and is kept open
 * for the next connect(). It is verified, gets a shadow fd, loses its epoll registrations, and
 * goes to the pool after the program's fd is closed.
 *
 * At a quit or a swap the program's fd stays open, and a stand-in (another socket) takes its
 * place instead of the close.
 *
 * To be called for fds that have a word in the map, and without the pool's lock, which these
 * functions take. errno is kept.
 */
#ifndef MCPOOL_CHECKIN_H
#define MCPOOL_CHECKIN_H

#include <stdbool.h>
#include <stdint.h>

#include "base/clock.h"
#include "conn/conn.h"
#include "base/unwind.h"

/* A check-in between begin and end: the connection has a shadow fd already, and the program's
 * fd is still open. It lives in the frame of the function that makes the real call. CLEANUP is
 * registered there until check_in_end() or check_in_call_off(). WORD and what follows are
 * private to checkin.c. */
struct check_in {
    struct conn *conn;
    int fd;
    int shadow_fd;   /* -1 in a dry run, and if DUPLICATED */
    bool returned;   /* the real call has returned: check_in_end() has begun */
    bool covered;    /* see pool_check_in() */
    bool duplicated; /* other fds name the connection: the program still has it */
    bool clean;      /* no reply was still to come; no call was begun since, if it is kept */
    bool forgotten;  /* FD was a connection, and the map has no word for it any more */
    enum reason refusal;       /* why the connection is not kept, if begin returns false */
    uint32_t word;             /* what the map had for FD */
    uint64_t calls;            /* begun on the connection when it was verified */
    unsigned int unregistered; /* epoll registrations that were removed */
    msec_t now;
    struct _pthread_cleanup_buffer cleanup;
};

/* FD, of which the map has said WORD, is about to be closed or replaced. True: its connection
 * is to be kept, or lives on in duplicates of FD. Then the caller makes the real call and must
 * call check_in_end(). Until then no other thread can check the connection in by closing its
 * last duplicate, as FD may still name it. If the real call never returns, because its thread
 * is cancelled or a signal handler jumps out of it, the connection is given up (base/unwind.h).
 * False: there is nothing to keep. If FORGOTTEN is set then, FD was a connection and is not
 * tracked any more. */
bool check_in_begin(struct check_in *check_in, int fd, uint32_t word);
void check_in_end(struct check_in *check_in);

/* Instead of check_in_end(), if the real call failed: the connection stays with the program,
 * untracked, and gets its epoll registrations back. One that has duplicates stays tracked and
 * will not be pooled. */
void check_in_call_off(struct check_in *check_in);

/* The program is done with the connection at FD, of which the map has said WORD, but keeps the
 * fd open. True: the connection was checked in, and STAND_IN has its fd, its close-on-exec flag
 * and its epoll registrations. STAND_IN is a socket that the caller still has to close. FD is
 * not tracked then. False: FD is what it was, and still tracked if the reason may pass. A
 * connection with duplicates is left as it is. */
bool check_in_behind(int fd, uint32_t word, int stand_in);

/* The duplicates of a connection that were replaced by something else. */
#define CHECK_IN_MOVED_MOST 8
struct check_in_moved {
    unsigned int count;
    int fds[CHECK_IN_MOVED_MOST];
};

/* Puts STAND_IN over all other fds of the connection at FD. MOVED is set to them, and they are
 * not tracked any more. False if there are too many, or if one could not be replaced: then
 * MOVED has those that were. */
COLD bool check_in_duplicates(int fd, uint32_t word, int stand_in,
                              struct check_in_moved *moved);

/* As check_in_behind(), but if the connection cannot be kept, STAND_IN takes its place anyway,
 * which ends it. REASON_NONE, or why FD is what it was: IN_FLIGHT, if another thread is in a
 * call on it; any other reason, if it could not be replaced. */
COLD enum reason check_in_swap(int fd, uint32_t word, int stand_in);

#endif
