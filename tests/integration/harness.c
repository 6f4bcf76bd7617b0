/*
 * The tools behind harness.h.
 */
#include "harness.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <dlfcn.h>
#include <fcntl.h>
#include <linux/close_range.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include <valgrind/valgrind.h>

#include "stats/stats_file.h"

static const char *setting(const char *name)
{
    const char *value = getenv(name);

    cr_assert(value != NULL, "%s is not set; run tests/integration/run.sh", name);
    return value;
}

int server_port(void)
{
    return atoi(setting("TEST_PORT"));
}

const char *server_path(void)
{
    return setting("TEST_PATH");
}

struct sockaddr_in *loopback(struct sockaddr_in *addr, int port)
{
    memset(addr, 0, sizeof(*addr));
    addr->sin_family = AF_INET;
    addr->sin_port = htons((uint16_t)port);
    addr->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    return addr;
}

int dial(int port)
{
    struct sockaddr_in addr;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    cr_assert(fd >= 0);
    cr_assert(connect(fd, (struct sockaddr *)loopback(&addr, port), sizeof(addr)) == 0);
    return fd;
}

int dial_server(void)
{
    return dial(server_port());
}

static void *close_it(void *fd)
{
    close((int)(intptr_t)fd);
    return NULL;
}

void close_by_another_thread(int fd)
{
    pthread_t thread;

    cr_assert(pthread_create(&thread, NULL, close_it, (void *)(intptr_t)fd) == 0);
    pthread_join(thread, NULL);
}

void send_text(int fd, const char *text)
{
    cr_assert(send(fd, text, strlen(text), MSG_NOSIGNAL) == (ssize_t)strlen(text));
}

void expect_text(int fd, const char *text)
{
    char got[4096] = "";
    size_t n = 0;

    while (n < strlen(text)) {
        ssize_t more = recv(fd, got + n, strlen(text) - n, 0);

        cr_assert(more > 0, "expected '%s', got '%s' and no more", text, got);
        n += (size_t)more;
    }
    cr_assert(strcmp(got, text) == 0, "expected '%s', got '%s'", text, got);
}

void exchange(int fd)
{
    send_text(fd, "get nothing\r\n");
    expect_text(fd, "END\r\n");
}

int local_port(int fd)
{
    struct sockaddr_in6 addr;
    socklen_t len = sizeof(addr);

    cr_assert(getsockname(fd, (struct sockaddr *)&addr, &len) == 0);
    return ntohs(addr.sin6_port);
}

int park(void)
{
    int fd = dial_server();
    int port = local_port(fd);

    exchange(fd);
    cr_assert(close(fd) == 0);
    EXPECT_KEPT();
    return port;
}

/* No other fd in these tests is so high. */
int shadow_fd(void)
{
    for (int fd = LOWEST_PRIVATE; fd < 65536; fd++) {
        if (unseen(SYS_fcntl, fd, F_GETFD) >= 0)
            return fd;
    }
    cr_assert_fail("no connection idles");
    return -1;
}

long opened_at_server(void)
{
    static char answer[65536];
    struct sockaddr_in addr;
    long fd = unseen(SYS_socket, AF_INET, SOCK_STREAM, 0);
    size_t n = 0;
    long opened;

    loopback(&addr, server_port());
    cr_assert(unseen(SYS_connect, fd, &addr, sizeof(addr)) == 0);
    unseen(SYS_write, fd, "stats\r\n", 7);
    while (n < 5 || memcmp(answer + n - 5, "END\r\n", 5) != 0) {
        long more = unseen(SYS_read, fd, answer + n, sizeof(answer) - 1 - n);

        cr_assert(more > 0);
        n += (size_t)more;
    }
    answer[n] = '\0';
    unseen(SYS_close, fd);
    cr_assert(sscanf(strstr(answer, "total_connections"), "total_connections %ld", &opened) ==
              1);
    return opened;
}

/* Calls VISIT with each log line of the process PID. */
static void each_log_line(pid_t pid, void (*visit)(const char *line, void *context),
                          void *context)
{
    char tag[32];
    char line[1024];
    FILE *file = fopen(setting("MCPOOL_LOG"), "r");

    snprintf(tag, sizeof(tag), "libmcpool[%d] ", pid);
    if (!file)
        return;
    while (fgets(line, sizeof(line), file)) {
        char *text = strstr(line, tag);

        if (text)
            visit(text + strlen(tag), context);
    }
    fclose(file);
}

static void note_event(const char *line, void *context)
{
    static const char *const events[] = {": kept", ": not kept", ": reused", ": discarded",
                                         ": would be reused"};

    for (size_t i = 0; i < sizeof(events) / sizeof(events[0]); i++) {
        if (strstr(line, events[i]))
            strcpy(context, line);
    }
}

const char *last_event(void)
{
    static char event[1024];

    event[0] = '\0';
    each_log_line(getpid(), note_event, event);
    return event;
}

struct counting {
    const char *text;
    int n;
};

static void count_line(const char *line, void *context)
{
    struct counting *counting = context;

    counting->n += strstr(line, counting->text) != NULL;
}

int log_count_of(pid_t pid, const char *text)
{
    struct counting counting = {text, 0};

    each_log_line(pid, count_line, &counting);
    return counting.n;
}

int log_count(const char *text)
{
    return log_count_of(getpid(), text);
}

/* The call by which the library makes a piece of a wait. */
static long piece_of(long nr)
{
    switch (nr) {
#ifdef SYS_poll
    case SYS_poll:
        return SYS_ppoll;
#endif
#ifdef SYS_epoll_wait
    case SYS_epoll_wait:
        return SYS_epoll_pwait;
#endif
    default:
        return nr;
    }
}

void wait_inside(pid_t tid, long nr)
{
    char path[64];
    long inside = -1;

    snprintf(path, sizeof(path), "/proc/self/task/%d/syscall", tid);
    while (inside != nr && inside != piece_of(nr)) {
        FILE *file = fopen(path, "r");

        cr_assert(file != NULL, "the thread is gone, or %s is not readable", path);
        if (fscanf(file, "%ld", &inside) != 1)
            inside = -1; /* "running" */
        fclose(file);
    }
}

void not_under_asan(void)
{
    if (dlsym(RTLD_DEFAULT, "__asan_init"))
        cr_skip_test("impossible under ASan");
}

void not_under_valgrind(void)
{
    if (RUNNING_ON_VALGRIND)
        cr_skip_test("impossible under valgrind");
}

void needs_close_range(void)
{
    if (unseen(SYS_close_range, ~0U, ~0U, CLOSE_RANGE_CLOEXEC) != 0)
        cr_skip_test("this kernel has no close_range()");
}

void fill_fd_message(struct fd_message *message, int fd)
{
    memset(message, 0, sizeof(*message));
    message->iov = (struct iovec){&message->byte, 1};
    message->msg.msg_hdr = (struct msghdr){.msg_iov = &message->iov,
                                           .msg_iovlen = 1,
                                           .msg_control = &message->control,
                                           .msg_controllen = sizeof(message->control)};
    message->control.header = (struct cmsghdr){CMSG_LEN(sizeof(int)), SOL_SOCKET, SCM_RIGHTS};
    memcpy(CMSG_DATA(&message->control.header), &fd, sizeof(fd));
}

int fd_of_message(const struct fd_message *message)
{
    int fd;

    memcpy(&fd, CMSG_DATA(&message->control.header), sizeof(fd));
    return fd;
}

void expect_good_end(pid_t child)
{
    int status;

    cr_assert(waitpid(child, &status, 0) == child);
    cr_expect(WIFEXITED(status) && WEXITSTATUS(status) == 0, "status %x", status);
}

/* Its start time may be any. */
const char *stats_file_of(pid_t pid)
{
    static char path[600];
    DIR *dir = opendir(setting("MCPOOL_STATS"));
    struct dirent *entry;
    uint64_t start;
    int named;

    path[0] = '\0';
    cr_assert(dir);
    while ((entry = readdir(dir))) {
        if (stats_parse_name(entry->d_name, &named, &start) && named == pid)
            snprintf(path, sizeof(path), "%s/%s", setting("MCPOOL_STATS"), entry->d_name);
    }
    closedir(dir);
    return path[0] ? path : NULL;
}

/* As in the library, which the test is not linked with. */
bool stats_parse_name(const char *name, int *pid, uint64_t *start)
{
    unsigned long number;
    bool good = sscanf(name, "%d-%lu", pid, &number) == 2;

    *start = number;
    return good;
}

/* Criterion has a connection of its own. */
const struct stats *stats_at(pid_t pid, int port)
{
    static union {
        struct stats_header header;
        char bytes[8192];
    } file;
    const struct stats_slot *slot = (const void *)(&file.header + 1);
    const char *path = stats_file_of(pid);
    char name[64];
    int fd;

    if (!path)
        return NULL;
    memset(&file, 0, sizeof(file));
    fd = open(path, O_RDONLY | O_CLOEXEC);
    cr_assert(read(fd, file.bytes, sizeof(file.bytes)) >= (ssize_t)STATS_FILE_SIZE(1));
    close(fd);
    cr_assert(file.header.magic == STATS_MAGIC && file.header.pid == pid);
    snprintf(name, sizeof(name), "127.0.0.1:%d", port);
    for (int i = 0; i < 3; i++) {
        if (strcmp(slot[i].endpoint, name) == 0)
            return &slot[i].stats;
    }
    return NULL;
}

int listen_here(int *port)
{
    struct sockaddr_in addr;
    socklen_t len = sizeof(addr);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    cr_assert(bind(fd, (struct sockaddr *)loopback(&addr, 0), len) == 0);
    cr_assert(listen(fd, 16) == 0);
    cr_assert(getsockname(fd, (struct sockaddr *)&addr, &len) == 0);
    *port = ntohs(addr.sin_port);
    return fd;
}

void exchange_played(int fd, long server)
{
    send_text(fd, "get a\r\n");
    unseen(SYS_write, server, "END\r\n", 5);
    expect_text(fd, "END\r\n");
}

int dial_played(int port, int listener, long *server)
{
    int fd = dial(port);

    *server = unseen(SYS_accept4, listener, NULL, NULL, 0);
    exchange_played(fd, *server);
    close(fd);
    EXPECT_KEPT();
    fd = dial(port);
    EXPECT_EVENT(": reused as ");
    return fd;
}

struct rlimit allow_no_more_fds(void)
{
    struct rlimit limit, before;

    cr_assert(getrlimit(RLIMIT_NOFILE, &before) == 0);
    limit = before;
    limit.rlim_cur = (rlim_t)dup(0) + 1;
    cr_assert(setrlimit(RLIMIT_NOFILE, &limit) == 0);
    return before;
}

struct script {
    int listener;
    const char *answer;
    int hang_up_after;
};

static void *serve(void *argument)
{
    struct script *script = argument;

    for (;;) {
        int fd = accept(script->listener, NULL, NULL);
        char chunk[4096];
        int answers = 0;

        if (fd < 0)
            return NULL;
        while (recv(fd, chunk, sizeof(chunk), 0) > 0) {
            send(fd, script->answer, strlen(script->answer), MSG_NOSIGNAL);
            if (++answers == script->hang_up_after)
                break;
        }
        close(fd);
    }
}

int scripted_server(const char *answer, int hang_up_after)
{
    static struct script script;
    pthread_t thread;
    int port;

    script = (struct script){listen_here(&port), answer, hang_up_after};
    cr_assert(pthread_create(&thread, NULL, serve, &script) == 0);
    return port;
}
