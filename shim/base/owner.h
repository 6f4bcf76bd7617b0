/*
 * Which process owns the pool. A child of a fork or vfork must not use its parent's pool; a
 * hook makes the plain call there. Also counts the events after which a connection must not be
 * reused: children, and changes of user, group, root or capabilities.
 */
#ifndef MCPOOL_OWNER_H
#define MCPOOL_OWNER_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/compiler.h"
#include "base/reasons.h"

/* How many children were made so far, by any call with a hook. A connection remembers the count
 * of the time when it was made. Another count means that a child may hold a copy of its fd.
 * hooks/children.S raises it too. */
extern _Atomic uint32_t fork_epoch __attribute__((visibility("hidden")));

/* How many children may run in our memory, as the child of a vfork() does until it ends or
 * becomes another program. */
extern _Atomic uint32_t memory_sharers __attribute__((visibility("hidden")));

/* Around a call that makes a child in our memory, by the thread that makes it. STAYS: the child
 * may still run there when the call has returned. What a jump keeps from owner_sharer_made()
 * counts for good. */
void owner_sharer_begins(void);
void owner_sharer_made(bool stays);

/* How many children were made without the handlers of fork() and not for an exec. Such a child
 * may hold copies of shadow fds as long as it lives. A connection remembers the count of the
 * time when it was made. One that is idle at another count is never reused. */
extern _Atomic uint32_t orphan_epoch __attribute__((visibility("hidden")));

/* How often the process changed its user, group, root or capabilities. */
extern _Atomic uint32_t cred_epoch __attribute__((visibility("hidden")));

/* Makes the calling process the owner: at start-up, or in the child of a fork. */
void owner_adopt(void);

/* Before the first connection. From now on owner_is_this_process() is false in a child that did
 * not run the fork handlers; until then there was nothing that such a child could take for its
 * own. False, and nothing is done, in such a child. */
bool owner_watch(void);

/* The pid of the owner; 0 before start-up and without an owner. It has a page for itself, which
 * the kernel wipes in the child of a fork, as a child in another PID namespace may have the
 * owner's pid. */
#if defined(__x86_64__)
#define OWNER_PAGE 4096
#else
#define OWNER_PAGE 65536
#endif
extern struct owner_page {
    _Alignas(OWNER_PAGE) _Atomic pid_t pid;
} owner_page __attribute__((visibility("hidden")));

/* Compares the pid of the owner with that of this process. */
COLD bool owner_is_this_pid(void);

/* Whether the calling process owns this memory. False before start-up, and in a child of
 * vfork(), which runs in its parent's memory, of _Fork() and of clone(). One system call while
 * a child may run in our memory, else none. Relaxed loads: see owner.c. */
static inline bool owner_is_this_process(void)
{
    return atomic_load_explicit(&owner_page.pid, memory_order_relaxed) != 0 &&
           (atomic_load_explicit(&memory_sharers, memory_order_relaxed) == 0 ||
            owner_is_this_pid());
}

/* Whether the process certainly has one thread and no child runs in our memory. Reads glibc's
 * __libc_single_threaded (since 2.32), else counts in /proc: one system call. Keeps errno. */
COLD bool owner_has_one_thread(void);

/* The same as far as libc knows: no system call. False for good once there were several
 * threads, and before glibc 2.32. */
COLD bool owner_never_had_threads(void);

/* Why this process must not pool any more; REASON_NONE while it may. The first reason stays. */
enum reason owner_refusal(void);
COLD void owner_refuse(enum reason reason);

/* owner_disown() leaves the pool without an owner, so that every hook makes the plain call, and
 * returns the pid of the former owner, or 0. owner_restore() sets the owner. */
COLD pid_t owner_disown(void);
COLD void owner_restore(pid_t owner);

#endif
