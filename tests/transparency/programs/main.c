/*
 * The main program of all programs here.
 *
 *     programs --list                          prints each name, and 1 if it must reuse
 *     programs NAME[,NAME...] PORT NO_SERVER   runs them one after the other
 *
 * PORT is the scripted server's; at NO_SERVER no server listens.
 */
#include "program.h"

FILE *out;
struct sockaddr_in server;
struct sockaddr_in no_server;

static struct program *programs;

void program_add(struct program *program)
{
    program->next = programs;
    programs = program;
}

int dial(void)
{
    int fd = (int)STEP(socket(AF_INET, SOCK_STREAM, 0));

    STEP(connect(fd, SERVER));
    return fd;
}

int dial_quietly(void)
{
    int fd = socket(AF_INET, SOCK_STREAM, 0);

    if (connect(fd, SERVER) != 0)
        SAY("no connection: %d\n", errno);
    return fd;
}

void tell(int fd, const char *text)
{
    size_t n = strlen(text);

    if (send(fd, text, n, MSG_NOSIGNAL) != (ssize_t)n)
        SAY("not sent: %d\n", errno);
}

static bool hear(int fd, const char *text, char *got, size_t room)
{
    size_t n = 0, end = strlen(text);

    while (n < room - 1) {
        ssize_t more = recv(fd, got + n, room - 1 - n, 0);

        if (more <= 0)
            break;
        n += (size_t)more;
        got[n] = '\0';
        if (n >= end && strcmp(got + n - end, text) == 0)
            return true;
    }
    got[n] = '\0';
    return false;
}

void hear_until(int fd, const char *text)
{
    char got[4096];
    bool whole = hear(fd, text, got, sizeof(got));

    SAY("heard%s: %s\n", whole ? "" : " in vain", got);
}

void ask(int fd, const char *key)
{
    char request[128];

    snprintf(request, sizeof(request), "get %s\r\n", key);
    tell(fd, request);
    hear_until(fd, "END\r\n");
}

void park(void)
{
    int fd = dial_quietly();
    char got[128];

    tell(fd, "get parked\r\n");
    if (!hear(fd, "END\r\n", got, sizeof(got)))
        SAY("not parked\n");
    close(fd);
}

void wait_for(int fd, short events)
{
    struct pollfd wanted = {fd, events, 0};
    int result = poll(&wanted, 1, 5000);

    SAY("poll %x: %d, %x\n", events, result, wanted.revents);
}

struct sockaddr_in deaf_server(void)
{
    struct sockaddr_in addr = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    socklen_t len = sizeof(addr);
    int listener = socket(AF_INET, SOCK_STREAM, 0);

    if (bind(listener, (struct sockaddr *)&addr, len) != 0 || listen(listener, 0) != 0 ||
        getsockname(listener, (struct sockaddr *)&addr, &len) != 0)
        SAY("no deaf server: %d\n", errno);
    for (int i = 0; i < 2; i++) {
        int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);

        connect(fd, (struct sockaddr *)&addr, sizeof(addr));
    }
    return addr;
}

void say_open_fds(void)
{
    SAY("open:");
    for (int fd = 0; fd < 48; fd++) {
        if (fcntl(fd, F_GETFD) >= 0)
            SAY(" %d", fd);
    }
    SAY("\n");
}

static struct sockaddr_in loopback(const char *port)
{
    return (struct sockaddr_in){.sin_family = AF_INET,
                                .sin_port = htons((uint16_t)atoi(port)),
                                .sin_addr = {htonl(INADDR_LOOPBACK)}};
}

static struct program *named(const char *name)
{
    struct program *program = programs;

    while (program && strcmp(program->name, name) != 0)
        program = program->next;
    return program;
}

static void list(void)
{
    for (struct program *program = programs; program; program = program->next)
        SAY("%s %d\n", program->name, program->pools);
}

int main(int argc, char **argv)
{
    out = fdopen(fcntl(STDOUT_FILENO, F_DUPFD, OUT_FD), "w");
    if (!out)
        return 2;
    setlinebuf(out);
    if (argc == 2 && strcmp(argv[1], "--list") == 0)
        list();
    if (argc != 4)
        return argc == 2 ? 0 : 2;
    server = loopback(argv[2]);
    no_server = loopback(argv[3]);
    for (char *name = strtok(argv[1], ","); name; name = strtok(NULL, ",")) {
        struct program *program = named(name);

        if (!program)
            return 2;
        program->run();
    }
    return 0;
}
