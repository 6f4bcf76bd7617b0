/*
 * Fds: duplicates, bulk closes, limits, and which fd a call returns.
 */
#include "program.h"

#include <linux/close_range.h>
#include <sched.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/select.h>
#include <sys/stat.h>
#include <sys/syscall.h>

int close_range(unsigned int first, unsigned int last, int flags);
void closefrom(int first);

static void move_out_to(int fd)
{
    STEP(dup2(OUT_FD, fd));
    out = fdopen(fd, "w");
    setlinebuf(out);
    close(OUT_FD);
}

POOLED_PROGRAM(lowest_free_fd)
{
    int first, second;

    park();
    first = dial();
    ask(first, "one");
    second = dial();
    ask(second, "two");
    STEP(close(first));
    STEP(open("/dev/null", O_RDONLY));
    STEP(close(second));
    STEP(dial());
    STEP(dial());
    STEP(dup(0));
    say_open_fds();
}

/* Standard input is closed, becomes a connection, and becomes a file again by a call inside
 * libc that no hook sees. */
POOLED_PROGRAM(standard_input_reopened)
{
    char path[] = "/tmp/program-XXXXXX", got[16] = "";

    STEP(close(0));
    park();
    STEP(dial());
    close(mkstemp(path));
    SAY("file at %d\n", fileno(freopen(path, "r+", stdin)));
    STEP(write(0, "quit\r\n", 6));
    STEP(pread(0, got, sizeof(got), 0));
    SAY("%s\n", got);
    STEP(shutdown(0, SHUT_WR));
    STEP(close(0));
    STEP(fcntl(0, F_GETFD));
    unlink(path);
}

POOLED_PROGRAM(closed_twice)
{
    int fd;

    park();
    fd = dial();
    ask(fd, "one");
    STEP(close(fd));
    STEP(close(fd));
    STEP(fcntl(fd, F_GETFD));
    STEP(recv(fd, &(char){0}, 1, 0));
    STEP(send(fd, "x", 1, 0));
    STEP(shutdown(fd, SHUT_RDWR));
    STEP(close(-1));
    STEP(close(4711));
    STEP(close(70000));
}

PROGRAM(duplicates)
{
    int fd, copy, other;

    park();
    fd = dial();
    ask(fd, "one");
    copy = (int)STEP(dup(fd));
    STEP(close(fd));
    ask(copy, "two");
    STEP(dup2(copy, 40));
    other = (int)STEP(dup3(40, 41, O_CLOEXEC));
    STEP(fcntl(other, F_GETFD));
    STEP(close(copy));
    ask(41, "three");
    copy = (int)STEP(fcntl(41, F_DUPFD, 50));
    other = (int)STEP(fcntl(41, F_DUPFD_CLOEXEC, 50));
    STEP(close(40));
    STEP(close(41));
    STEP(close(copy));
    STEP(fcntl(other, F_GETFD));
    ask(other, "four");
    STEP(close(other));
    say_open_fds();
}

/* As Rust's try_clone() makes them: one to read from, one to write to. */
POOLED_PROGRAM(clones)
{
    for (int i = 0; i < 6; i++) {
        int fd = dial();
        int clone = (int)STEP(fcntl(fd, F_DUPFD_CLOEXEC, 3));

        STEP(fcntl(clone, F_SETFL, i % 2 ? O_NONBLOCK : 0));
        STEP(fcntl(fd, F_GETFL));
        tell(fd, "get one\r\n");
        wait_for(clone, POLLIN);
        hear_until(clone, "END\r\n");
        STEP(close(i < 3 ? fd : clone));
        STEP(write(i < 3 ? fd : clone, "x", 1));
        tell(i < 3 ? clone : fd, "get two\r\n");
        wait_for(i < 3 ? clone : fd, POLLIN);
        hear_until(i < 3 ? clone : fd, "END\r\n");
        if (i == 2) {
            tell(clone, "quit\r\n");
            STEP(read(clone, &(char){0}, 1));
        }
        STEP(close(i < 3 ? clone : fd));
        say_open_fds();
    }
}

/* An epoll set goes on reporting a closed fd while another fd names the socket. */
POOLED_PROGRAM(clone_of_a_watched_one)
{
    int set = (int)STEP(epoll_create1(EPOLL_CLOEXEC));

    park();
    for (int i = 0; i < 3; i++) {
        struct epoll_event event = {EPOLLIN, {.u64 = 7}}, got = {0};
        int fd = dial();
        int clone;

        if (i == 0)
            STEP(epoll_ctl(set, EPOLL_CTL_ADD, fd, &event));
        clone = (int)STEP(fcntl(fd, F_DUPFD_CLOEXEC, 3));
        if (i == 1)
            STEP(epoll_ctl(set, EPOLL_CTL_ADD, fd, &event));
        if (i == 2)
            STEP(epoll_ctl(set, EPOLL_CTL_ADD, clone, &event));
        STEP(close(fd));
        tell(clone, "get one\r\n");
        wait_for(clone, POLLIN);
        STEP(epoll_wait(set, &got, 1, 1000));
        SAY("%u %u\n", (unsigned int)got.events, (unsigned int)got.data.u64);
        hear_until(clone, "END\r\n");
        STEP(close(clone));
        STEP(epoll_wait(set, &got, 1, 0));
    }
}

POOLED_PROGRAM(something_else_takes_the_place)
{
    int null = open("/dev/null", O_RDWR);

    park();
    for (int i = 0; i < 3; i++) {
        int fd = dial();

        ask(fd, "one");
        STEP(i ? dup2(null, fd) : dup3(null, fd, O_CLOEXEC));
        STEP(write(fd, "x", 1));
        STEP(read(fd, &(char){0}, 1));
        STEP(fcntl(fd, F_GETFD));
        STEP(close(fd));
    }
}

static void say_owner_and_mode(int fd)
{
    struct stat status;

    STEP(fstat(fd, &status));
    SAY("%o %u %u\n", status.st_mode, status.st_uid, status.st_gid);
}

/* A socket has a mode and an owner, as every file has. */
POOLED_PROGRAM(modes_and_owners)
{
    for (int i = 0; i < 4; i++) {
        int fd;

        park();
        fd = dial();
        say_owner_and_mode(fd);
        STEP(i % 2 ? fchmod(fd, 0600) : fchown(fd, getuid(), getgid()));
        say_owner_and_mode(fd);
        ask(fd, "one");
        STEP(close(fd));
        STEP(i % 2 ? fchmod(fd, 0600) : fchown(fd, getuid(), getgid()));
    }
}

POOLED_PROGRAM(one_connection_takes_the_place_of_another)
{
    int first, second;

    park();
    first = dial();
    ask(first, "one");
    second = dial();
    ask(second, "two");
    STEP(dup2(second, first));
    ask(first, "three");
    STEP(close(second));
    ask(first, "four");
    STEP(close(first));
    say_open_fds();
}

PROGRAM(duplicates_that_fail)
{
    int fd;

    park();
    fd = dial();
    STEP(dup(-1));
    STEP(dup2(fd, -1));
    STEP(dup2(-1, fd));
    STEP(dup2(4711, fd));
    STEP(dup3(fd, fd, 0));
    STEP(dup3(fd, 100, 4711));
    STEP(dup3(STDIN_FILENO, fd, 4711));
    ask(fd, "two");
    STEP(dup2(fd, fd));
    STEP(fcntl(fd, F_DUPFD, -1));
    STEP(fcntl(fd, F_DUPFD, 100000000));
    STEP(fcntl(fd, 4711, 0));
    ask(fd, "one");
    STEP(close(fd));
}

POOLED_PROGRAM(standard_streams_are_connections)
{
    park();
    STEP(close(STDIN_FILENO));
    STEP(close(STDOUT_FILENO));
    STEP(close(STDERR_FILENO));
    for (int i = 0; i < 4; i++)
        STEP(dial());
    for (int fd = 0; fd < 3; fd++)
        ask(fd, "one");
    for (int fd = 0; fd < 3; fd++)
        STEP(close(fd));
    STEP(dial());
    ask(0, "two");
    STEP(puts("no terminal shows this"));
}

PROGRAM(stdio_on_a_connection)
{
    char line[128];
    FILE *stream;
    int fd;

    park();
    fd = dial();
    stream = fdopen(fd, "r+");
    STEP(fputs("get one\r\nget two\r\n", stream));
    STEP(fflush(stream));
    for (int i = 0; i < 6 && fgets(line, sizeof(line), stream); i++)
        SAY("line: %s", line);
    STEP(fclose(stream));
    STEP(close(fd));
    STEP(fdopen(fd, "r") == NULL);
    fd = dial();
    STEP(fdopen(fd, "x") == NULL);
    ask(fd, "one");
    STEP(close(fd));
    say_open_fds();
}

PROGRAM(stream_opened_anew)
{
    char line[128];
    FILE *stream;
    int fd;

    park();
    fd = dial();
    ask(fd, "one");
    stream = fdopen(fd, "r+");
    STEP(freopen("/dev/null", "r", stream) == stream);
    STEP(fileno(stream));
    STEP(fgets(line, sizeof(line), stream) == NULL);
    STEP(fclose(stream));
    STEP(dial());
    say_open_fds();
}

POOLED_PROGRAM(closed_in_a_loop)
{
    park();
    STEP(dial());
    STEP(dial());
    park();
    for (int fd = 3; fd < 10000; fd++) {
        if (fd != OUT_FD && close(fd) == 0)
            SAY("closed %d\n", fd);
    }
    STEP(dial());
    ask(3, "one");
    STEP(close(3));
    park();
}

POOLED_PROGRAM(closed_by_range)
{
    park();
    STEP(dial());
    STEP(dial());
    park();
    STEP(close_range(10, 5, 0));
    STEP(close_range(0, 5, 4711));
    STEP(close_range(4, OUT_FD - 1, 0));
    STEP(close_range(OUT_FD + 1, ~0U, 0));
    say_open_fds();
    ask(3, "one");
    STEP(close(3));
    STEP(dial());
    ask(3, "two");
    STEP(close_range(3, 3, 0));
    STEP(close(3));
    park();
}

POOLED_PROGRAM(range_closed_on_exec)
{
    park();
    STEP(dial());
    ask(3, "one");
    STEP(close_range(3, OUT_FD - 1, CLOSE_RANGE_CLOEXEC));
    STEP(fcntl(3, F_GETFD));
    ask(3, "two");
    STEP(close(3));
    STEP(dial());
    STEP(fcntl(3, F_GETFD));
    ask(3, "three");
}

PROGRAM(range_closed_for_oneself)
{
    park();
    STEP(dial());
    STEP(close_range(4, OUT_FD - 1, CLOSE_RANGE_UNSHARE));
    ask(3, "one");
    STEP(close(3));
    STEP(dial());
    ask(3, "two");
    STEP(close(3));
}

POOLED_PROGRAM(closed_from)
{
    park();
    STEP(dup2(0, OUT_FD + 5));
    closefrom(OUT_FD + 1);
    STEP(fcntl(OUT_FD + 5, F_GETFD));
    STEP(dial());
    ask(3, "one");
    STEP(close(3));
    STEP(dial());
    ask(3, "two");
}

POOLED_PROGRAM(closed_by_syscall)
{
    int fd;

    park();
    fd = dial();
    ask(fd, "one");
    STEP(syscall(SYS_close, fd));
    STEP(syscall(SYS_close, fd));
    STEP(syscall(SYS_close, -1));
    fd = dial();
    ask(fd, "two");
    STEP(close(fd));
}

/* By a system call that has all six arguments. */
static char *second_page(void)
{
    enum { PAGE = 4096 };
    int file = memfd_create("pages", 0);

    pwrite(file, "a", 1, 0);
    pwrite(file, "b", 1, PAGE);
    return (char *)syscall(SYS_mmap, NULL, PAGE, PROT_READ, MAP_PRIVATE, file, PAGE);
}

PROGRAM(calls_by_syscall)
{
    char byte;
    int fd;

    park();
    fd = dial();
    STEP(syscall(SYS_write, fd, "get one\r\n", 9));
    STEP(syscall(SYS_read, fd, &byte, 1));
    hear_until(fd, "END\r\n");
    STEP(syscall(SYS_fcntl, fd, F_GETFD));
    STEP(syscall(SYS_dup, fd));
    STEP(syscall(SYS_getpid) == getpid());
    STEP(syscall(100000));
    STEP(*second_page());
    STEP(syscall(SYS_close, fd));
    ask(fd + 1, "two");
}

/* System calls on the connection, and duplicates over it and of it. */
POOLED_PROGRAM(more_calls_by_syscall)
{
    char byte;
    int pipes[2], fd;

    park();
    fd = dial();
    STEP(syscall(SYS_dup3, fd, 40, O_CLOEXEC));
    ask(40, "one");
    STEP(close(fd));
    STEP(close(40));
    fd = dial();
    ask(fd, "two");
    STEP(syscall(SYS_dup3, 0, fd, 0));
    STEP(read(fd, &byte, 1));
    STEP(close(fd));
    fd = dial();
    ask(fd, "three");
    STEP(syscall(SYS_dup3, fd, fd, 0));
    STEP(pipe(pipes));
    STEP(write(pipes[1], "get one\r\n", 9));
    STEP(syscall(SYS_splice, pipes[0], NULL, fd, NULL, 9, 0));
    hear_until(fd, "END\r\n");
    STEP(syscall(SYS_close_range, fd, fd, 0));
    STEP(close(fd));
    STEP(syscall(SYS_close_range, 10, 5, 0));
    fd = dial();
    ask(fd, "four");
    STEP(close(fd));
    park();
    fd = dial();
    ask(fd, "five");
    STEP(syscall(SYS_clone, CLONE_SIGHAND, 0, 0, 0, 0)); /* refused: no CLONE_VM */
    STEP(syscall(SYS_clone3, NULL, 0));
    STEP(close(fd));
    park();
}

/* select() takes no fd above 1023. */
POOLED_PROGRAM(fds_near_the_end_of_select)
{
    struct rlimit limit = {2048, 4096};
    fd_set wanted;
    int fd;

    STEP(setrlimit(RLIMIT_NOFILE, &limit));
    park();
    while ((fd = dup(0)) < 1021)
        continue;
    SAY("reached %d\n", fd);
    for (int i = 0; i < 4; i++) {
        fd = dial();
        if (fd < FD_SETSIZE) {
            tell(fd, "get one\r\n");
            FD_ZERO(&wanted);
            FD_SET(fd, &wanted);
            STEP(select(fd + 1, &wanted, NULL, NULL, &(struct timeval){5, 0}));
            STEP(FD_ISSET(fd, &wanted) != 0);
            hear_until(fd, "END\r\n");
        }
        if (i % 2)
            STEP(close(fd));
    }
}

/* What a program sees when its fds run out. Which fds it gets may differ: idle connections have
 * some of the highest, and give them up only when there are no others. */
static void open_until_there_are_no_more(rlim_t most)
{
    struct rlimit limit = {most, most};
    int fd, count = 0;

    move_out_to((int)most - 1);
    STEP(setrlimit(RLIMIT_NOFILE, &limit));
    for (int i = 0; i < 3; i++)
        park();
    fd = dial();
    ask(fd, "one");
    STEP(close(fd));
    while (socket(AF_INET, SOCK_STREAM, 0) >= 0)
        count++;
    SAY("%d more, errno %d\n", count, errno);
    STEP(dup(0));
    STEP(open("/dev/null", O_RDONLY));
    STEP(fcntl(0, F_DUPFD, 10));
    for (int i = 0; i < 2; i++) {
        STEP(close(20));
        STEP(dial());
        ask(20, "two");
    }
}

PROGRAM(a_limit_of_64)
{
    open_until_there_are_no_more(64);
}

PROGRAM(a_limit_of_256)
{
    open_until_there_are_no_more(256);
}

PROGRAM(a_limit_of_1024)
{
    open_until_there_are_no_more(1024);
}

static int duplicate(void)
{
    return dup(0);
}

static int duplicate_by_fcntl(void)
{
    return fcntl(0, F_DUPFD, 0);
}

static int new_epoll(void)
{
    return epoll_create(1);
}

static int new_epoll1(void)
{
    return epoll_create1(0);
}

/* All fds that a limit of 64 allows, while connections are idle. */
static void use_up_by(int (*make)(void))
{
    struct rlimit limit = {64, 64};
    int fds[3], count = 0;

    move_out_to(63);
    STEP(setrlimit(RLIMIT_NOFILE, &limit));
    for (int i = 0; i < 3; i++) {
        fds[i] = dial();
        ask(fds[i], "one");
    }
    for (int i = 0; i < 3; i++)
        close(fds[i]);
    while (make() >= 0)
        count++;
    SAY("%d more, errno %d\n", count, errno);
}

PROGRAM(a_limit_used_up_by_dup)
{
    use_up_by(duplicate);
}

PROGRAM(a_limit_used_up_by_fcntl)
{
    use_up_by(duplicate_by_fcntl);
}

PROGRAM(a_limit_used_up_by_epoll_create)
{
    use_up_by(new_epoll);
}

PROGRAM(a_limit_used_up_by_epoll_create1)
{
    use_up_by(new_epoll1);
}

/* As many connections at a time as the limit allows, each used; then again. */
POOLED_PROGRAM(a_limit_that_is_used_up)
{
    struct rlimit limit = {128, 128};
    int fds[128], n;

    move_out_to(127);
    STEP(setrlimit(RLIMIT_NOFILE, &limit));
    for (int round = 0; round < 3; round++) {
        for (n = 0; (fds[n] = socket(AF_INET, SOCK_STREAM, 0)) >= 0; n++) {
            char got[256];

            if (connect(fds[n], SERVER) != 0)
                SAY("no connection: %d\n", errno);
            tell(fds[n], "get one\r\n");
            if (recv(fds[n], got, ANSWER, MSG_WAITALL) != ANSWER)
                SAY("no answer: %d\n", errno);
        }
        SAY("round %d: %d connections, errno %d\n", round, n, errno);
        while (n > 0)
            close(fds[--n]);
    }
}

POOLED_PROGRAM(flags_of_fds)
{
    park();
    for (int i = 0; i < 4; i++) {
        int type = SOCK_STREAM | (i & 1 ? SOCK_CLOEXEC : 0) | (i & 2 ? SOCK_NONBLOCK : 0);
        int fd = (int)STEP(socket(AF_INET, type, 0));

        STEP(connect(fd, SERVER));
        wait_for(fd, POLLOUT);
        STEP(fcntl(fd, F_GETFL));
        STEP(fcntl(fd, F_GETFD));
        STEP(fcntl(fd, F_GETOWN));
        STEP(fcntl(fd, F_GETSIG));
        STEP(fcntl(fd, F_SETFD, i & 1 ? 0 : FD_CLOEXEC));
        STEP(fcntl(fd, F_SETFL, i & 2 ? 0 : O_NONBLOCK));
        STEP(fcntl(fd, F_GETFL));
        STEP(fcntl(fd, F_GETFD));
        tell(fd, "get one\r\n");
        wait_for(fd, POLLIN);
        hear_until(fd, "END\r\n");
        STEP(close(fd));
    }
}

POOLED_PROGRAM(files_between_connections)
{
    int fds[6];

    for (int i = 0; i < 6; i++)
        park();
    for (int i = 0; i < 6; i++)
        fds[i] = (int)STEP(i % 2 ? open("/dev/null", O_RDWR) : dial_quietly());
    for (int i = 0; i < 6; i += 2)
        ask(fds[i], "one");
    for (int i = 0; i < 6; i++)
        STEP(close(fds[5 - i]));
    STEP(open("/dev/null", O_RDONLY));
}

/* Fds beyond each size of the kernel's table, opened by calls that the library sees and by
 * calls that it does not, while connections come and go. */
POOLED_PROGRAM(fds_are_given_out_in_order)
{
    int fds[3];

    for (int turn = 0; turn < 90; turn++) {
        for (int i = 0; i < 3; i++)
            fds[i] = dial();
        for (int i = 0; i < 3; i++) {
            ask(fds[i], "one");
            STEP(close(fds[i]));
        }
        for (int i = 0; i < 4; i++)
            STEP(open("/dev/null", O_RDONLY));
        STEP(socket(AF_INET, SOCK_STREAM, 0));
        STEP(dup(0));
    }
}
