/*
 * The list of members on the board.
 */
#include "pool/members.h"

#include <errno.h>
#include <unistd.h>

#include "base/rawsys.h"

/* In an entry, above the pid: the member blocks. Pids are below 2^22 (proc(5), pid_max). */
#define BLOCKED UINT32_C(0x80000000)

_Atomic unsigned int members_self = MEMBER_NONE;

/* The place of this process in the list; -1: it is in none. And the list in which it blocks. */
static _Atomic int place = -1;
static _Atomic(struct members *) blocked_in;

static uint32_t self(void)
{
    return (uint32_t)raw_syscall(SYS_getpid);
}

static void set(struct members *members, uint32_t entry)
{
    int at = atomic_load(&place);

    if (at >= 0)
        atomic_store(&members->list[at], entry);
}

void members_join(struct members *members)
{
    if (atomic_load(&place) >= 0)
        return;
    for (int i = 0; i < MEMBERS_MOST; i++) {
        uint32_t none = 0;
        int nowhere = -1;

        if (atomic_load(&members->list[i]) != 0 ||
            !atomic_compare_exchange_strong(&members->list[i], &none, self()))
            continue;
        /* Another thread may have been faster: a second entry would never be taken out. */
        if (atomic_compare_exchange_strong(&place, &nowhere, i))
            atomic_store(&members_self, MEMBER_AT_WORK);
        else
            atomic_store(&members->list[i], 0);
        return;
    }
}

void members_note_blocked(struct members *members)
{
    members_join(members);
    set(members, self() | BLOCKED);
    atomic_store(&blocked_in, members);
    atomic_store(&members_self, MEMBER_BLOCKED);
}

void members_note_woken_slow(void)
{
    atomic_store(&members_self, MEMBER_AT_WORK);
    set(atomic_load(&blocked_in), self());
}

void members_leave(struct members *members)
{
    set(members, 0);
    atomic_store(&place, -1);
    atomic_store(&members_self, MEMBER_NONE);
}

/* An entry whose process has gone is free again. */
static bool is_at_work(_Atomic uint32_t *at)
{
    uint32_t entry = atomic_load(at);

    if (entry == 0 || entry & BLOCKED)
        return false;
    if (raw_syscall(SYS_kill, entry, 0) != -ESRCH)
        return true;
    atomic_compare_exchange_strong(at, &entry, 0);
    return false;
}

bool members_others_work(struct members *members)
{
    int own = atomic_load(&place), taken = 0;

    for (int i = 0; i < MEMBERS_MOST; i++) {
        if (i != own && is_at_work(&members->list[i]))
            return true;
        taken += atomic_load(&members->list[i]) != 0;
    }
    return taken == MEMBERS_MOST;
}

void members_after_fork_in_child(void)
{
    atomic_store(&place, -1);
    atomic_store(&members_self, MEMBER_NONE);
}
