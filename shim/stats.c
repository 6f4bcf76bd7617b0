/*
 * Making, extending and leaving the file of counters.
 */
#include "stats.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "raw.h"
#include "stats_file.h"
#include "text.h"

#define PATH_SIZE (CONFIG_DIRECTORY_SIZE + 48)

/* Room is taken in steps of a page. */
#define STEP 4096

/* Of those who ended without removing their file a newcomer removes so many, and looks for them
 * among the names that so many calls read. */
#define GONE_AT_ONCE  8
#define READS_AT_MOST 16

atomic_bool stats_wanted;

static const struct config *settings;
static size_t most_slots;
static atomic_bool busy;

/* Written between stats_begin() and stats_end() only. */
static char path[PATH_SIZE];
static struct stats_header *file; /* as much as there may ever be; NULL: none is made yet */
static size_t room;               /* so many bytes of it can be touched */
static struct stat identity;

/* A descriptor of ours at this moment, which a child made by another thread would inherit. */
static _Atomic int passing = -1;

void stats_start(const struct config *config, size_t slots)
{
    settings = config;
    most_slots = slots;
    atomic_store(&stats_wanted, config->stats[0] != '\0');
}

bool stats_begin(void)
{
    return !atomic_exchange(&busy, true);
}

void stats_end(void)
{
    atomic_store(&busy, false);
}

static int open_briefly(const char *name, int flags)
{
    int fd = (int)raw_syscall(SYS_openat, AT_FDCWD, name,
                              flags | O_CLOEXEC | O_NOFOLLOW | O_NOCTTY | O_NONBLOCK, 0600);

    atomic_store(&passing, fd < 0 ? -1 : fd);
    return fd;
}

static void close_again(int fd)
{
    atomic_store(&passing, -1);
    raw_syscall(SYS_close, fd);
}

/* How much of NAME was read into BYTES; 0 also when there is no such file. */
static size_t read_some(const char *name, void *bytes, size_t n)
{
    int fd = open_briefly(name, O_RDONLY);
    long got;

    if (fd < 0)
        return 0;
    got = raw_syscall(SYS_read, fd, bytes, n);
    close_again(fd);
    return got < 0 ? 0 : (size_t)got;
}

static uint64_t start_of_this_process(void)
{
    char text[512];
    size_t n = read_some("/proc/self/stat", text, sizeof(text));

    return stats_parse_start(text, n);
}

/* Its inode; 0 when it is not to be had. */
static uint64_t pid_namespace(void)
{
    struct stat found = {0};

    raw_syscall(SYS_newfstatat, AT_FDCWD, "/proc/self/ns/pid", &found, 0);
    return found.st_ino;
}

/* Whether the process PID, by whom the file NAME was made, has ended: none of that number is
 * there, in the one namespace where we can know. An earlier image of this very process, before
 * exec, has ended too. */
static bool is_gone(const char *name, int pid)
{
    struct stats_header header = {0};

    if (pid != getpid() && raw_syscall(SYS_kill, pid, 0) != -ESRCH)
        return false;
    return read_some(name, &header, sizeof(header)) < sizeof(header) ||
           header.pid_namespace == pid_namespace();
}

struct directory_entry {
    uint64_t inode;
    int64_t offset;
    uint16_t length;
    uint8_t type;
    char name[];
};

/* Fills PIDS and STARTS with up to GONE_AT_ONCE whose numbers nobody has now. */
static size_t find_gone(const char *directory, int *pids, uint64_t *starts)
{
    _Alignas(struct directory_entry) char bytes[1024] = {0};
    int fd = open_briefly(directory, O_RDONLY | O_DIRECTORY);
    size_t found = 0;

    if (fd < 0)
        return 0;
    for (int i = 0; i < READS_AT_MOST && found < GONE_AT_ONCE; i++) {
        long n = raw_syscall(SYS_getdents64, fd, bytes, sizeof(bytes));

        for (long at = 0; at < n && found < GONE_AT_ONCE;) {
            const struct directory_entry *entry = (const void *)(bytes + at);

            found += stats_parse_name(entry->name, &pids[found], &starts[found]) &&
                     raw_syscall(SYS_kill, pids[found], 0) == -ESRCH;
            at += entry->length;
        }
        if (n <= 0)
            break;
    }
    close_again(fd);
    return found;
}

static void name_file(char *name, const char *directory, int pid, uint64_t start)
{
    text_format(name, PATH_SIZE, "%s/%d-%lu", directory, pid, (unsigned long)start);
}

/* Many short processes that end without a word, and nobody who looks: still few files. */
static void remove_gone(const char *directory)
{
    int pids[GONE_AT_ONCE + 1] = {0};
    uint64_t starts[GONE_AT_ONCE + 1] = {0};
    size_t n = find_gone(directory, pids, starts);
    char name[PATH_SIZE];

    for (size_t i = 0; i < n; i++) {
        name_file(name, directory, pids[i], starts[i]);
        if (is_gone(name, pids[i]))
            raw_syscall(SYS_unlinkat, AT_FDCWD, name, 0);
    }
}

/* A file that grows beyond this limit would be a signal to the program. */
static bool may_be_large(size_t size)
{
    struct rlimit limit = {0};

    return raw_syscall(SYS_prlimit64, 0, RLIMIT_FSIZE, NULL, &limit) == 0 &&
           limit.rlim_cur >= size;
}

static bool grow(int fd, size_t size)
{
    size = (size + STEP - 1) / STEP * STEP;
    if (!may_be_large(size) || raw_syscall(SYS_fallocate, fd, 0, 0, size) != 0)
        return false;
    room = size;
    return true;
}

static void fill_header(struct stats_header *header, uint64_t start)
{
    struct timespec now = {0};

    raw_syscall(SYS_clock_gettime, CLOCK_REALTIME, &now);
    header->layout = STATS_LAYOUT;
    header->header_size = sizeof(struct stats_header);
    header->slot_size = sizeof(struct stats_slot);
    header->reasons = REASON_COUNT;
    header->names = stats_names();
    header->pid = getpid();
    header->dry_run = settings->dry_run;
    header->start = start;
    header->pid_namespace = pid_namespace();
    header->since = now.tv_sec;
    text_format(header->version, sizeof(header->version), "%s", MCPOOL_VERSION);
    atomic_store_explicit(&header->magic, STATS_MAGIC, memory_order_release);
}

static bool identify(int fd, struct stat *found)
{
    return raw_syscall(SYS_newfstatat, fd, "", found, AT_EMPTY_PATH) == 0;
}

/* FD is a new and empty file. */
static bool map_file(int fd, uint64_t start)
{
    long memory = -1;

    if (identify(fd, &identity) && grow(fd, sizeof(struct stats_header)))
        memory = raw_syscall(SYS_mmap, NULL, STATS_FILE_SIZE(most_slots),
                             PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (memory <= 0)
        return false;
    file = (struct stats_header *)memory;
    fill_header(file, start);
    return true;
}

static bool make_file_in(const char *directory, uint64_t start)
{
    int fd;
    bool made;

    name_file(path, directory, getpid(), start);
    fd = open_briefly(path, O_RDWR | O_CREAT | O_EXCL);
    if (fd == -EEXIST && is_gone(path, getpid())) {
        raw_syscall(SYS_unlinkat, AT_FDCWD, path, 0);
        fd = open_briefly(path, O_RDWR | O_CREAT | O_EXCL);
    }
    if (fd < 0)
        return false;
    made = map_file(fd, start);
    close_again(fd);
    if (made)
        remove_gone(directory);
    else
        raw_syscall(SYS_unlinkat, AT_FDCWD, path, 0);
    return made;
}

static bool make_file(void)
{
    uint64_t start = start_of_this_process();

    if (start == 0)
        return false;
    if (make_file_in(settings->stats, start))
        return true;
    if (settings->stats_instead[0] == '\0')
        return false;
    raw_syscall(SYS_mkdirat, AT_FDCWD, settings->stats_instead, 0700);
    return make_file_in(settings->stats_instead, start);
}

/* Under its name may be another file by now. */
static bool extend(size_t size)
{
    int fd = open_briefly(path, O_RDWR);
    struct stat found = {0};
    bool done;

    if (fd < 0)
        return false;
    done = identify(fd, &found) && found.st_ino == identity.st_ino &&
           found.st_dev == identity.st_dev && grow(fd, size);
    close_again(fd);
    return done;
}

struct stats *stats_publish(size_t slot_number, const char *text)
{
    size_t end = STATS_FILE_SIZE(slot_number + 1);
    struct stats_slot *slot;

    if (!file && !make_file()) {
        path[0] = '\0';
        atomic_store(&stats_wanted, false);
        return NULL;
    }
    if (end > room && !extend(end))
        return NULL;
    slot = (struct stats_slot *)(file + 1) + slot_number;
    atomic_fetch_or(&slot->change, 1);
    text_format(slot->endpoint, sizeof(slot->endpoint), "%s", text);
    memset((void *)&slot->stats, 0, sizeof(slot->stats));
    atomic_fetch_add(&slot->change, 1);
    return &slot->stats;
}

static void move_gauge(_Atomic uint64_t *to, _Atomic uint64_t *from)
{
    stats_set(to, stats_read(from));
}

static void move_counter(_Atomic uint64_t *to, _Atomic uint64_t *from)
{
    uint64_t n = atomic_exchange_explicit(from, 0, memory_order_relaxed);

    if (n > 0)
        atomic_fetch_add_explicit(to, n, memory_order_relaxed);
}

void stats_move(struct stats *to, struct stats *from)
{
#define STAT(kind, name, text) move_##kind(&to->name, &from->name);
#include "stats.def"
#undef STAT
    for (int i = 0; i < REASON_COUNT; i++) {
        move_counter(&to->refused[i], &from->refused[i]);
        move_counter(&to->discarded[i], &from->discarded[i]);
    }
}

bool stats_after_fork_in_child(void)
{
    size_t size = STATS_FILE_SIZE(most_slots);
    int fd = atomic_exchange(&passing, -1);

    if (fd >= 0)
        raw_syscall(SYS_close, fd);
    atomic_store(&busy, false);
    path[0] = '\0';
    atomic_store(&stats_wanted, settings->stats[0] != '\0');
    if (!file)
        return true;
    if (raw_syscall(SYS_mmap, file, size, PROT_READ | PROT_WRITE,
                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE, -1,
                    0) != (long)file)
        return false;
    file = NULL;
    room = 0;
    return true;
}

void stats_finish(void)
{
    if (path[0] != '\0')
        raw_syscall(SYS_unlinkat, AT_FDCWD, path, 0);
}
