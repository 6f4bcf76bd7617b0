/*
 * The family: who changes its identity leaves it.
 */
#include "harness.h"

#include <errno.h>
#include <grp.h>
#include <limits.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <sys/fsuid.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "family.h"

TestSuite(family_identity, .init = share_memory, .timeout = 60);

/* Who changes its identity has no queue when the call returns. */

static const gid_t other_group = 54321;

static long by_setuid(void)
{
    return setuid(54321);
}

static long by_setgid(void)
{
    return setgid(other_group);
}

static long by_setgroups(void)
{
    return setgroups(1, &other_group);
}

static long by_setresuid(void)
{
    return setresuid(54321, 54321, 54321);
}

static long by_chroot(void)
{
    return chroot("/");
}

static long by_unshare(void)
{
    return unshare(CLONE_NEWNET);
}

static long by_number_of_setuid(void)
{
    return syscall(SYS_setuid, 54321);
}

static long by_number_of_setgroups(void)
{
    return syscall(SYS_setgroups, 1, &other_group);
}

static long by_number_of_unshare(void)
{
    return syscall(SYS_unshare, CLONE_NEWNET);
}

static long by_unshare_of_mounts(void)
{
    return unshare(CLONE_NEWNS);
}

static long by_number_of_unshare_of_names(void)
{
    return syscall(SYS_unshare, CLONE_NEWUTS);
}

static long by_unshare_of_pids(void)
{
    return unshare(CLONE_NEWPID);
}

/* The library must not see how the new root is made. */
static long by_number_of_pivot_root(void)
{
    if (unseen(SYS_unshare, CLONE_NEWNS) != 0 ||
        unseen(SYS_mount, "none", "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0 ||
        unseen(SYS_mount, "none", "/mnt", "tmpfs", 0, NULL) != 0) {
        errno = EPERM;
        return -1;
    }
    cr_assert(mkdir("/mnt/old", 0700) == 0);
    cr_assert(count_queues() == QUEUES);
    return syscall(SYS_pivot_root, "/mnt", "/mnt/old");
}

static const struct change {
    const char *name;
    long (*make)(void);
    bool pools; /* goes on to pool, and so may make another family */
} changes[] = {
    {"setuid", by_setuid, true},
    {"setgid", by_setgid, true},
    {"setgroups", by_setgroups, true},
    {"setresuid", by_setresuid, true},
    {"chroot", by_chroot, true},
    {"unshare", by_unshare, false},
    {"setuid by number", by_number_of_setuid, true},
    {"setgroups by number", by_number_of_setgroups, true},
    {"unshare by number", by_number_of_unshare, false},
    {"unshare of mounts", by_unshare_of_mounts, true},
    {"unshare of names by number", by_number_of_unshare_of_names, true},
    {"unshare of pids", by_unshare_of_pids, true},
    {"pivot_root by number", by_number_of_pivot_root, false}, /* there is no /proc */
};
static const struct change *change;

static void leave_the_family(void)
{
    cr_assert(count_queues() == QUEUES);
    if (change->make() != 0) {
        cr_expect(errno == EPERM, "%s: errno %d", change->name, errno);
        return;
    }
    cr_expect(count_queues() == 0, "%s: %zu queues", change->name, count_queues());
    if (!change->pools)
        return;
    in_child(give_one);
    cr_expect(count_queues() == QUEUES, "%s: %zu queues after it", change->name,
              count_queues());
    EXPECT_TAKEN();
}

/* What is queued stays with the family. */
static void changes_of_identity(void)
{
    for (size_t i = 0; i < sizeof(changes) / sizeof(changes[0]); i++) {
        int port;

        change = &changes[i];
        in_child(give_one);
        port = told->port;
        in_child(leave_the_family);
        cr_expect(port_of_next() == port, "%s took it away", change->name);
    }
}

Test(family_identity, changes_of_identity)
{
    alone(changes_of_identity);
}

static void set_the_same_ids(void)
{
    uid_t user = geteuid();
    gid_t group = getegid();

    cr_assert(setuid(user) == 0 && setgid(group) == 0);
    cr_assert(seteuid(user) == 0 && setegid(group) == 0);
    cr_assert(setreuid(user, user) == 0 && setregid(group, group) == 0);
    cr_assert(setresuid(user, user, user) == 0 && setresgid(group, group, group) == 0);
    give_one();
}

/* As each worker of gunicorn 20 does. */
static void the_same_ids_are_no_change(void)
{
    in_child(by_exit_now);
    in_child(set_the_same_ids);
    EXPECT_TAKEN();
}

Test(family_identity, the_same_ids_are_no_change)
{
    alone(the_same_ids_are_no_change);
}

/* A child that is made unseen has the queues as well. */
static void an_orphan_changes_its_identity(void)
{
    pid_t child;

    in_child(by_exit_now);
    cr_assert(count_queues() == QUEUES);
    child = (pid_t)unseen(SYS_clone, SIGCHLD, 0, 0, 0, 0);
    if (child == 0)
        _exit(setresuid(54321, 54321, 54321) != 0 && errno == EPERM ? 0 : (int)count_queues());
    wait_for(child);
    cr_expect(count_queues() == QUEUES);
    in_child(give_one);
    EXPECT_TAKEN();
}

Test(family_identity, an_orphan_changes_its_identity)
{
    alone(an_orphan_changes_its_identity);
}

/* Children that no handler of fork() prepares. They may be in other namespaces, and say by
 * their end how many queues they have. */

static int end_with_queues(void *unused)
{
    (void)unused;
    _exit((int)count_queues());
}

static pid_t by_fork_without_handlers(void)
{
    pid_t child = _Fork();

    return child == 0 ? end_with_queues(NULL) : child;
}

static pid_t by_clone(void)
{
    static char stack[65536] __attribute__((aligned(16)));

    return clone(end_with_queues, stack + sizeof(stack), SIGCHLD, NULL);
}

static pid_t by_clone_into_namespaces(void)
{
    static char stack[65536] __attribute__((aligned(16)));
    int child = clone(end_with_queues, stack + sizeof(stack),
                      SIGCHLD | CLONE_NEWUSER | CLONE_NEWNET, NULL);

    return child < 0 && (errno == EPERM || errno == ENOSPC) ? by_clone() : child;
}

static pid_t by_number_of_clone(void)
{
    pid_t child = (pid_t)syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0);

    return child == 0 ? end_with_queues(NULL) : child;
}

static void an_orphan_has_no_queue(void)
{
    static pid_t (*const ways[])(void) = {by_fork_without_handlers, by_clone,
                                          by_clone_into_namespaces, by_number_of_clone};

    in_child(by_exit_now);
    for (size_t i = 0; i < sizeof(ways) / sizeof(ways[0]); i++) {
        pid_t child = ways[i]();
        int status;

        cr_assert(waitpid(child, &status, 0) == child && WIFEXITED(status));
        cr_expect(WEXITSTATUS(status) == 0, "way %zu: %d queues", i, WEXITSTATUS(status));
    }
    cr_expect(count_queues() == QUEUES);
    in_child(give_one);
    EXPECT_TAKEN();
}

Test(family_identity, an_orphan_has_no_queue)
{
    alone(an_orphan_has_no_queue);
}

/* What a handler of fork() does that was registered before ours: so it runs while its thread
 * has the lock of the turns. */
static void (*in_fork)(void);

static void handle_fork(void)
{
    if (in_fork)
        in_fork();
}

static void register_first(void)
{
    pthread_atfork(handle_fork, NULL, NULL);
}

static void (*const before_every_constructor)(void)
    __attribute__((used, section(".preinit_array"))) = register_first;

static atomic_bool is_forking, has_changed;

static void wait_for_the_change(void)
{
    is_forking = true;
    while (!has_changed)
        sched_yield();
}

static void *change_identity(void *unused)
{
    while (!is_forking)
        sched_yield();
    setfsgid(getegid());
    has_changed = true;
    return unused;
}

/* The thread that changes it does not wait for the end of the fork. */
static void a_change_while_another_thread_forks(void)
{
    pthread_t thread;
    pid_t child;
    int status;

    in_child(by_exit_now);
    cr_assert(count_queues() == QUEUES);
    in_fork = wait_for_the_change;
    cr_assert(pthread_create(&thread, NULL, change_identity, NULL) == 0);
    child = fork();
    if (child == 0)
        _exit((int)count_queues());
    in_fork = NULL;
    cr_assert(pthread_join(thread, NULL) == 0);
    cr_assert(waitpid(child, &status, 0) == child);
    cr_expect(status == 0, "the child has queues: status %x", status);
    cr_expect(count_queues() == 0, "%zu queues", count_queues());
}

Test(family_identity, a_change_while_another_thread_forks)
{
    alone(a_change_while_another_thread_forks);
}

static void wait_for_the_group(void)
{
    is_forking = true;
    while (unseen(SYS_getegid) != other_group)
        sched_yield();
}

static void *change_group(void *unused)
{
    while (!is_forking)
        sched_yield();
    if (setgid(other_group) != 0)
        _exit(errno != EPERM);
    return unused;
}

/* The child has the new group already, and the call has not returned yet. */
static void forks_while_its_group_changes(void)
{
    pthread_t thread;
    pid_t child;

    in_fork = wait_for_the_group;
    cr_assert(pthread_create(&thread, NULL, change_group, NULL) == 0);
    child = fork();
    if (child == 0)
        _exit((int)count_queues());
    wait_for(child);
    cr_assert(pthread_join(thread, NULL) == 0);
}

static void a_child_with_another_group(void)
{
    in_child(by_exit_now);
    for (int i = 0; i < 20; i++)
        in_child(forks_while_its_group_changes);
}

Test(family_identity, a_child_with_another_group)
{
    alone(a_child_with_another_group);
}

static long shortest = LONG_MAX;

static long now_in_us(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

static void replace_a_queue(void)
{
    int queues[QUEUES];
    long began;

    cr_assert(find_queues(queues) == QUEUES);
    began = now_in_us();
    cr_assert(dup2(STDERR_FILENO, queues[0]) == queues[0]);
    if (now_in_us() - began < shortest)
        shortest = now_in_us() - began;
    cr_assert(close(queues[0]) == 0);
}

/* A handler of fork() does not wait for its own thread, which would last for 10 ms. */
static void nothing_waits_for_its_own_thread(void)
{
    in_fork = replace_a_queue;
    for (int i = 0; i < 5; i++) {
        in_child(by_exit_now);
        setfsgid(getegid()); /* the next fork makes another family */
    }
    cr_expect(shortest < 10000, "%ld us", shortest);
}

Test(family_identity, nothing_waits_for_its_own_thread)
{
    alone(nothing_waits_for_its_own_thread);
}
