/*
 * The list of members on the board.
 */
#include "pool/members.h"

#include <errno.h>
#include <unistd.h>

#include "base/rawsys.h"

/* In an entry, above the pid: the member blocks. Pids are below 2^22 (proc(5), pid_max). */
#define BLOCKED UINT32_C(0x80000000)

bool members_is_blocked;

/* The place of this process in the list; -1: it is in none. */
static _Atomic int place = -1;

static uint32_t self(void)
{
    return (uint32_t)raw_syscall(SYS_getpid);
}

static void set(struct family_board *board, uint32_t entry)
{
    int at = atomic_load(&place);

    if (at >= 0)
        atomic_store(&board->members[at], entry);
}

void members_join(struct family_board *board)
{
    if (atomic_load(&place) >= 0)
        return;
    for (int i = 0; i < FAMILY_MEMBERS; i++) {
        uint32_t none = 0;

        if (atomic_load(&board->members[i]) == 0 &&
            atomic_compare_exchange_strong(&board->members[i], &none, self())) {
            atomic_store(&place, i);
            return;
        }
    }
}

void members_note_blocked(struct family_board *board)
{
    members_join(board);
    set(board, self() | BLOCKED);
    members_is_blocked = true;
}

void members_note_woken_slow(void)
{
    struct family_board *board = family_get();

    members_is_blocked = false;
    if (board)
        set(board, self());
}

void members_leave(struct family_board *board)
{
    set(board, 0);
    atomic_store(&place, -1);
    members_is_blocked = false;
}

/* An entry whose process has gone is free again. */
static bool is_at_work(const _Atomic uint32_t *at)
{
    uint32_t entry = atomic_load(at);

    if (entry == 0 || entry & BLOCKED)
        return false;
    if (raw_syscall(SYS_kill, entry, 0) != -ESRCH)
        return true;
    atomic_compare_exchange_strong((_Atomic uint32_t *)at, &entry, 0);
    return false;
}

bool members_others_work(const struct family_board *board)
{
    int own = atomic_load(&place), taken = 0;

    for (int i = 0; i < FAMILY_MEMBERS; i++) {
        if (i != own && is_at_work(&board->members[i]))
            return true;
        taken += atomic_load(&board->members[i]) != 0;
    }
    return taken == FAMILY_MEMBERS;
}

void members_after_fork_in_child(void)
{
    atomic_store(&place, -1);
    members_is_blocked = false;
}
