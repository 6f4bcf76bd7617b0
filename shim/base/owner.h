/*
 * Whose memory is this? One process owns the pool; forks, vforks, changes of identity and of
 * namespaces end what was known.
 */
#ifndef MCPOOL_OWNER_H
#define MCPOOL_OWNER_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/compiler.h"
#include "base/reasons.h"

/* How many children were made so far, by any call we see. A connection remembers the count it
 * was born under; another count means that a child may hold a copy of it. Raised in assembly
 * too. */
extern _Atomic uint32_t fork_epoch __attribute__((visibility("hidden")));

/* How many of them may run in our memory, as the child of a vfork() does. Raised in assembly
 * too. */
extern _Atomic uint32_t memory_sharers __attribute__((visibility("hidden")));

/* How many of them neither ran the handlers of fork() nor are about to exec, and so may hold
 * copies of private fds as long as they live. A connection remembers the count it was made
 * under; one that idles under another is never lent again. */
extern _Atomic uint32_t orphan_epoch __attribute__((visibility("hidden")));

/* How often the process changed its user, group, root or capabilities. */
extern _Atomic uint32_t cred_epoch __attribute__((visibility("hidden")));

/* Makes the calling process the owner: at start-up, and in the child of a fork. False when
 * there is no memory for it. */
bool owner_start(void);
void owner_adopt(void);

/* The owner's number, in a page that the kernel wipes in the child of a fork, so that a child
 * which happens to have that number in another PID namespace is not taken for it; NULL before
 * owner_start(). */
extern _Atomic pid_t *owner_pid __attribute__((visibility("hidden")));

/* The comparison itself, by getpid(). */
COLD bool owner_is_this_pid(void);

/* Whether the calling process owns this memory. False in a child of vfork() (which runs in its
 * parent's memory), of _Fork() and of clone(), and before owner_start(). One system call if
 * there ever was a child in our memory, else none. */
static inline bool owner_is_this_process(void)
{
    return owner_pid && atomic_load_explicit(owner_pid, memory_order_relaxed) != 0 &&
           (atomic_load_explicit(&memory_sharers, memory_order_relaxed) == 0 ||
            owner_is_this_pid());
}

/* Whether the calling thread is certainly the only one there is, and no child runs in our
 * memory. glibc may say so (__libc_single_threaded, since 2.32), else /proc does: one system
 * call. Keeps errno. */
COLD bool owner_has_one_thread(void);

/* Why this process must not pool any more; REASON_NONE when it may. Once set it stays. */
enum reason owner_refusal(void);
COLD void owner_refuse(enum reason reason);

/* From now on nothing owns this memory, so that every hook is a plain call. Returns the owner
 * it had; 0 when there was none already. The other gives it to OWNER. */
COLD pid_t owner_disown(void);
COLD void owner_restore(pid_t owner);

#endif
