/*
 * Processes: children of every kind, exec(), changes of identity, ends.
 */
#include "program.h"

#include <grp.h>
#include <sched.h>
#include <signal.h>
#include <spawn.h>
#include <sys/fsuid.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>

extern char **environ;
pid_t _Fork(void);

static void say_end_of(pid_t child)
{
    int status = 0;

    if (waitpid(child, &status, 0) != child)
        SAY("no child\n");
    SAY("child: %x\n", status);
}

static pid_t made(pid_t child)
{
    fflush(out);
    return child;
}

POOLED_PROGRAM(child_with_its_own)
{
    pid_t child;
    int fd;

    park();
    child = made(fork());
    if (child == 0) {
        fd = dial();
        ask(fd, "child");
        STEP(close(fd));
        say_open_fds();
        _exit(7);
    }
    say_end_of(child);
    fd = dial();
    ask(fd, "parent");
    STEP(close(fd));
}

PROGRAM(child_with_its_parents)
{
    pid_t child;
    int fd;

    park();
    fd = dial();
    ask(fd, "one");
    child = made(fork());
    if (child == 0) {
        ask(fd, "child");
        STEP(close(fd));
        _exit(0);
    }
    say_end_of(child);
    ask(fd, "parent");
    STEP(close(fd));
    fd = dial();
    ask(fd, "two");
}

PROGRAM(parent_closes_first)
{
    int pipes[2], fd;
    pid_t child;

    park();
    pipe(pipes);
    fd = dial();
    child = made(fork());
    if (child == 0) {
        close(pipes[1]);
        read(pipes[0], &(char){0}, 1);
        ask(fd, "child");
        exit(0);
    }
    STEP(close(fd));
    fd = dial();
    ask(fd, "parent");
    STEP(close(fd));
    close(pipes[1]);
    say_end_of(child);
}

static void bare_child(pid_t (*make)(void))
{
    pid_t child;
    int fd;

    park();
    fd = dial();
    child = made(make());
    if (child == 0) {
        int other = dial_quietly();

        ask(other, "child");
        close(other);
        ask(fd, "inherited");
        close(fd);
        _exit(3);
    }
    say_end_of(child);
    ask(fd, "parent");
    STEP(close(fd));
    park();
}

PROGRAM(child_without_handlers)
{
    bare_child(_Fork);
}

static pid_t make_by_syscall(void)
{
    return (pid_t)syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0);
}

PROGRAM(child_by_syscall)
{
    bare_child(make_by_syscall);
}

static int in_a_clone(void *argument)
{
    int fd = *(int *)argument;

    ask(fd, "child");
    close(fd);
    return 4;
}

PROGRAM(child_of_clone)
{
    enum { SIZE = 65536 };
    char *stack = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    int fd;

    park();
    fd = dial();
    say_end_of(clone(in_a_clone, stack + SIZE, SIGCHLD, &fd));
    ask(fd, "parent");
    STEP(close(fd));
}

/* What programs do between vfork() and exec(). */
POOLED_PROGRAM(child_of_vfork)
{
    pid_t child;
    int fd;

    park();
    fd = dial();
    ask(fd, "one");
    child = vfork();
    if (child == 0) {
        for (int i = 3; i < OUT_FD; i++)
            close(i);
        execl("/bin/echo", "echo", NULL);
        _exit(9);
    }
    say_end_of(child);
    ask(fd, "two");
    STEP(close(fd));
    fd = dial();
    ask(fd, "three");
}

/* Lists its fds below OUT_FD, without those that the shell itself opens. */
#define LIST "for n in 3 4 5 6 7 8 9; do [ -e /proc/self/fd/$n ] && echo open $n; done; :"

static char *const list[] = {"sh", "-c", LIST, NULL};

static void what_is_inherited(int type)
{
    pid_t child;
    int fd;

    park();
    fd = (int)STEP(socket(AF_INET, SOCK_STREAM | type, 0));
    STEP(connect(fd, SERVER));
    ask(fd, "one");
    child = made(fork());
    if (child == 0) {
        execv("/bin/sh", list);
        _exit(9);
    }
    say_end_of(child);
    STEP(close(fd));
    child = made(fork());
    if (child == 0) {
        execv("/bin/sh", list);
        _exit(9);
    }
    say_end_of(child);
}

PROGRAM(fds_of_a_new_program)
{
    what_is_inherited(0);
}

PROGRAM(no_fds_of_a_new_program)
{
    what_is_inherited(SOCK_CLOEXEC);
}

POOLED_PROGRAM(reused_fds_of_a_new_program)
{
    int fd;

    park();
    fd = (int)STEP(socket(AF_INET, SOCK_STREAM, 0));
    STEP(connect(fd, SERVER));
    STEP(dial());
    execv("/bin/sh", list);
}

PROGRAM(spawned)
{
    posix_spawn_file_actions_t actions;
    char *const arguments[] = {"sh", "-c", "head -n 1 <&5; " LIST, NULL};
    pid_t child;
    int fd;

    park();
    fd = dial();
    tell(fd, "get one\r\n");
    STEP(posix_spawn_file_actions_init(&actions));
    STEP(posix_spawn_file_actions_adddup2(&actions, fd, 5));
    STEP(posix_spawn_file_actions_addclose(&actions, fd));
    if (posix_spawn(&child, "/bin/sh", &actions, NULL, arguments, environ) == 0)
        say_end_of(child);
    STEP(close(fd));
    park();
}

POOLED_PROGRAM(shells)
{
    char line[64] = "";
    FILE *shell;
    int fd;

    park();
    fd = dial();
    ask(fd, "one");
    STEP(system("exit 3"));
    shell = popen("echo from the shell; exit 5", "r");
    STEP(fgets(line, sizeof(line), shell) != NULL);
    SAY("%s", line);
    STEP(pclose(shell));
    ask(fd, "two");
    STEP(close(fd));
    fd = dial();
    ask(fd, "three");
}

POOLED_PROGRAM(daemon_from_here)
{
    int pipes[2], fd;

    park();
    pipe(pipes);
    if (made(fork()) == 0) {
        close(pipes[0]);
        STEP(daemon(0, 1));
        park();
        fd = dial();
        ask(fd, "daemon");
        STEP(close(fd));
        fd = dial();
        ask(fd, "again");
        say_open_fds();
        exit(0);
    }
    close(pipes[1]);
    read(pipes[0], &(char){0}, 1);
}

static void use_a_connection(void)
{
    int fd = dial();

    ask(fd, "late");
    STEP(close(fd));
}

POOLED_PROGRAM(use_at_exit)
{
    STEP(atexit(use_a_connection));
    park();
    use_a_connection();
    exit(11);
}

POOLED_PROGRAM(left_at_once)
{
    park();
    use_a_connection();
    fflush(out);
    _exit(12);
}

POOLED_PROGRAM(crashed)
{
    struct rlimit none = {0, 0};

    setrlimit(RLIMIT_CORE, &none);
    park();
    use_a_connection();
    raise(SIGSEGV);
}

POOLED_PROGRAM(killed)
{
    park();
    use_a_connection();
    raise(SIGKILL);
}

/* Both runs fail alike where the test is not root. */
PROGRAM(another_user)
{
    int fd;

    park();
    STEP(setgid(65534));
    STEP(setuid(65534));
    STEP(getuid() == 0);
    for (int i = 0; i < 2; i++) {
        fd = dial();
        ask(fd, "one");
        STEP(close(fd));
    }
    STEP(setuid(0));
}

PROGRAM(identities_that_cannot_be_had)
{
    park();
    STEP(setuid((uid_t)-1));
    STEP(setgid((gid_t)-1));
    STEP(seteuid((uid_t)-1));
    STEP(setegid((gid_t)-1));
    STEP(setreuid((uid_t)-1, (uid_t)-1));
    STEP(setregid((gid_t)-1, (gid_t)-1));
    STEP(setresuid((uid_t)-1, (uid_t)-1, (uid_t)-1));
    STEP(setresgid((gid_t)-1, (gid_t)-1, (gid_t)-1));
    STEP(chroot("/nonexistent"));
    STEP(setns(-1, 0));
    STEP(setns(0, 0));
    STEP(unshare(0x12));
    use_a_connection();
}

/* Nothing changes, but the call itself does not show that. */
POOLED_PROGRAM(identities_as_they_were)
{
    gid_t groups[64];
    int n = getgroups(64, groups);

    for (int i = 0; i < 2; i++)
        park();
    STEP(setuid(getuid()));
    use_a_connection();
    STEP(setgid(getgid()));
    STEP(seteuid(geteuid()));
    STEP(setegid(getegid()));
    STEP(setreuid(-1, -1));
    STEP(setregid(-1, -1));
    STEP(setresuid(-1, -1, -1));
    STEP(setresgid(-1, -1, -1));
    STEP(setfsuid(geteuid()));
    STEP(setfsgid(getegid()));
    STEP(setgroups((size_t)n, groups));
    STEP(initgroups("root", getgid()));
    use_a_connection();
    STEP(syscall(SYS_setuid, getuid()));
    STEP(syscall(SYS_setfsgid, getegid()));
    STEP(syscall(SYS_unshare, 0));
    STEP(syscall(SYS_setns, -1, 0));
    use_a_connection();
}

PROGRAM(another_root)
{
    int fd;

    park();
    STEP(chroot("/proc"));
    for (int i = 0; i < 2; i++) {
        fd = dial();
        ask(fd, "one");
        STEP(close(fd));
    }
    STEP(open("/self/stat", O_RDONLY) >= 0);
}

PROGRAM(a_table_of_its_own)
{
    park();
    STEP(unshare(CLONE_FILES));
    use_a_connection();
    use_a_connection();
    STEP(unshare(CLONE_FS));
    use_a_connection();
}
