/*
 * A client whose address and requests are in one kind of memory:
 *
 *     memory PORT variables|heap|stack|mapped|given-back
 *
 * For given-back memory, which is no longer mapped, it prints the results of sending from it.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#define TURNS 6
#define FAR   65536 /* bytes; more than a page */

struct words {
    struct sockaddr_in server;
    char request[7];
};

static struct words variables;

static struct words *mapped(void)
{
    struct words *words =
        mmap(NULL, sizeof(*words), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    return words == MAP_FAILED ? NULL : words;
}

static struct words *place(const char *kind, struct words *stack)
{
    if (strcmp(kind, "variables") == 0)
        return &variables;
    if (strcmp(kind, "stack") == 0)
        return stack;
    return strcmp(kind, "mapped") == 0 ? mapped() : sbrk(FAR);
}

static int connected(const struct words *words)
{
    int fd = socket(AF_INET, SOCK_STREAM, 0);

    return connect(fd, (const struct sockaddr *)&words->server, sizeof(words->server)) == 0
               ? fd
               : -1;
}

static int speak(const struct words *words)
{
    char reply[64];
    int fd = connected(words);

    if (fd < 0 ||
        send(fd, words->request, sizeof(words->request), 0) != sizeof(words->request) ||
        recv(fd, reply, sizeof(reply), 0) != 5)
        return -1;
    return close(fd);
}

static int send_what_was_given_back(const struct words *words)
{
    int fd = connected(words);

    sbrk(-FAR);
    if (send(fd, words->request, sizeof(words->request), 0) == -1)
        puts(strerrorname_np(errno));
    return close(fd);
}

/* Far below the caller's part of the stack. */
static __attribute__((noinline)) int speak_from_below(const struct words *words)
{
    volatile char between[FAR] = {0};

    return speak(words) + between[FAR - 1];
}

int main(int argc, char **argv)
{
    struct words on_stack;
    struct words *words = argc == 3 ? place(argv[2], &on_stack) : NULL;

    if (!words)
        return 2;
    words->server = (struct sockaddr_in){.sin_family = AF_INET,
                                         .sin_port = htons((unsigned short)atoi(argv[1])),
                                         .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    memcpy(words->request, "get a\r\n", sizeof(words->request));
    for (int i = 0; i < TURNS; i++) {
        getpriority(PRIO_PROCESS, 0);
        if (speak_from_below(words) != 0)
            return 1;
    }
    getpriority(PRIO_PROCESS, 0);
    return strcmp(argv[2], "given-back") == 0 ? send_what_was_given_back(words) : 0;
}
