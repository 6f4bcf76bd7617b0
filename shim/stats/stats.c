/*
 * Creates, writes and removes the file of counters, and removes the files of processes that
 * have ended.
 */
#include "stats/stats.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/owner.h"
#include "base/ownfile.h"
#include "base/pages.h"
#include "base/rawsys.h"
#include "stats/stats_file.h"
#include "stats/switch_file.h"
#include "base/fmt.h"

#define PATH_SIZE (CONFIG_DIRECTORY_SIZE + 48)
#define NEVER     INT64_MAX

/* A process that creates its file removes up to GONE_AT_ONCE files of processes that have
 * ended. It looks for them in what READS_AT_MOST calls of getdents64(2) read. */
#define GONE_AT_ONCE  8
#define READS_AT_MOST 48
#define READ_SIZE     384 /* the longest name has 256 bytes */

atomic_bool stats_wanted;
_Atomic unsigned int stats_state;
_Atomic msec_t stats_due = NEVER;

const uint64_t stats_bucket_most[BUCKETS] = {
#define BUCKET(sum, suffix, most) most,
#include "stats/buckets.def"
#undef BUCKET
};

static const struct config *settings;
static size_t most_slots;
static atomic_bool busy; /* a trylock: the exchange acquires, the store releases */

/* Changed only between stats_begin() and stats_end(). */
static char path[PATH_SIZE];       /* of the file; empty: there is none */
static struct stats_header *image; /* what the file holds, at its largest; NULL at first */
static size_t used;                /* how many bytes of the image are written to the file */
static struct stat identity;       /* of the file */
static uid_t user;                 /* the effective one when the file is made */

_Atomic unsigned int mode_word = MODE_OFF | MODE_ASLEEP;

/* For the header; see stats_note_share(). */
static _Atomic uint64_t family;
static _Atomic uint32_t share;
static _Atomic(const _Atomic uint32_t *) queued_at;

/* The generation of the last wish that was followed, or 0. A child has that of its parent. */
static _Atomic uint64_t followed;

void stats_start(const struct config *config, size_t slots)
{
    settings = config;
    most_slots = slots;
    atomic_store(&stats_wanted, config->stats[0] != '\0');
    atomic_store(&mode_word, config->dry_run ? MODE_DRY : MODE_ON);
}

bool stats_begin(void)
{
    return !atomic_exchange(&busy, true);
}

void stats_end(void)
{
    atomic_store(&busy, false);
}

bool stats_is_busy(void)
{
    return atomic_load(&busy);
}

/* Reads up to N bytes of the file NAME into BYTES. Returns how many; 0 also on failure. */
static size_t read_some(const char *name, void *bytes, size_t n)
{
    int fd = ownfile_open(name, O_RDONLY);
    long got;

    if (fd < 0)
        return 0;
    got = raw_syscall(SYS_read, fd, bytes, n);
    ownfile_close(fd);
    return got < 0 ? 0 : (size_t)got;
}

static uint64_t start_of_this_process(void)
{
    char text[512];
    size_t n = read_some("/proc/self/stat", text, sizeof(text));

    return stats_parse_start(text, n);
}

/* The inode of our PID namespace; 0 when it cannot be read. */
static uint64_t pid_namespace(void)
{
    struct stat found = {0};

    raw_syscall(SYS_newfstatat, AT_FDCWD, "/proc/self/ns/pid", &found, 0);
    return found.st_ino;
}

/* The header without its names, which would take two kilobytes of the stack. */
#define HEAD_SIZE offsetof(struct stats_header, names)

/* Reads the first HEAD_SIZE bytes of the file NAME into HEADER. False when it is not one that a
 * process of our user has made. Any file may have such a name. */
static bool read_head(const char *name, void *header)
{
    const struct stats_header *read = header;
    struct stat found = {0};
    int fd = ownfile_open(name, O_RDONLY);
    bool good;

    if (fd < 0)
        return false;
    good = ownfile_identify(fd, &found) && S_ISREG(found.st_mode) && found.st_uid == user &&
           raw_syscall(SYS_read, fd, header, HEAD_SIZE) == (long)HEAD_SIZE &&
           read->magic == STATS_MAGIC;
    ownfile_close(fd);
    return good;
}

/* Whether a process of our user made the file NAME in our PID namespace. */
static bool is_of_our_kind(const char *name)
{
    _Alignas(struct stats_header) char bytes[HEAD_SIZE] = {0};
    const struct stats_header *header = (const void *)bytes;

    return read_head(name, bytes) && header->pid_namespace == pid_namespace();
}

/* Whether the process PID, which made the file NAME, has ended. Our own pid counts as ended:
 * this process made the file before an exec, or the pid was reused. */
static bool is_gone(const char *name, int pid)
{
    return (pid == getpid() || raw_syscall(SYS_kill, pid, 0) == -ESRCH) && is_of_our_kind(name);
}

/* struct linux_dirent64 of getdents64(2). */
struct directory_entry {
    uint64_t inode;
    int64_t offset;
    uint16_t length;
    uint8_t type;
    char name[];
};

/* Calls VISIT with CONTEXT for the names in DIRECTORY, until it returns false. */
COLD static void for_each_name(const char *directory,
                               bool (*visit)(const char *name, void *context), void *context)
{
    _Alignas(struct directory_entry) char bytes[READ_SIZE] = {0};
    int fd = ownfile_open(directory, O_RDONLY | O_DIRECTORY);
    bool more = fd >= 0;

    for (int i = 0; i < READS_AT_MOST && more; i++) {
        long n = raw_syscall(SYS_getdents64, fd, bytes, sizeof(bytes));

        more = n > 0;
        for (long at = 0; at < n && more;) {
            const struct directory_entry *entry = (const void *)(bytes + at);

            more = visit(entry->name, context);
            at += entry->length;
        }
    }
    if (fd >= 0)
        ownfile_close(fd);
}

/* Files whose pid no process has. */
struct gone {
    size_t count;
    int pids[GONE_AT_ONCE + 1]; /* one more, which is overwritten */
    uint64_t starts[GONE_AT_ONCE + 1];
};

static bool note_gone(const char *name, void *context)
{
    struct gone *gone = context;
    size_t n = gone->count;

    gone->count += stats_parse_name(name, &gone->pids[n], &gone->starts[n]) &&
                   raw_syscall(SYS_kill, gone->pids[n], 0) == -ESRCH;
    return gone->count < GONE_AT_ONCE;
}

static void name_file(char *name, const char *directory, int pid, uint64_t start)
{
    fmt_print(name, PATH_SIZE, "%s/%d-%lu", directory, pid, (unsigned long)start);
}

/* Keeps the directory small even if many short processes end without removing their file and no
 * `mcpool stat` clears up. */
static void remove_gone(const char *directory)
{
    struct gone gone = {.count = 0};
    char name[PATH_SIZE];

    for_each_name(directory, note_gone, &gone);
    for (size_t i = 0; i < gone.count; i++) {
        name_file(name, directory, gone.pids[i], gone.starts[i]);
        if (is_gone(name, gone.pids[i]))
            raw_syscall(SYS_unlinkat, AT_FDCWD, name, 0);
    }
}

/* What changes in the header. Between stats_begin() and stats_end(). */
static void update_header(struct stats_header *header)
{
    const _Atomic uint32_t *queued = atomic_load(&queued_at);

    header->mode = mode_now();
    header->followed = atomic_load(&followed);
    header->family = atomic_load(&family);
    header->share = atomic_load(&share);
    header->queued = queued ? atomic_load(queued) : 0;
}

static void fill_header(struct stats_header *header, uint64_t start)
{
    struct timespec now = {0};

    raw_syscall(SYS_clock_gettime, CLOCK_REALTIME, &now);
    header->layout = STATS_LAYOUT;
    header->header_size = sizeof(struct stats_header);
    header->slot_size = sizeof(struct stats_slot);
    header->names_at = offsetof(struct stats_header, names);
    header->names_size = sizeof(header->names);
    header->values_at = offsetof(struct stats_slot, stats);
    header->names = stats_names;
    header->pid = getpid();
    header->start = start;
    header->pid_namespace = pid_namespace();
    header->since = now.tv_sec;
    fmt_print(header->version, sizeof(header->version), "%s", MCPOOL_VERSION);
    update_header(header);
    /* Release, as stats_file.h promises to readers: the rest of the header is written before
     * `magic`. See concurrency.md, what may run where. */
    atomic_store_explicit(&header->magic, STATS_MAGIC, memory_order_release);
}

/* Whether the process is one user only. Else a file would belong to a user that the process is
 * for a while, and that user could write to it. */
static bool is_one_user(void)
{
    uid_t real = 0, saved = 0;

    return raw_syscall(SYS_getresuid, &real, &user, &saved) == 0 && real == user &&
           user == saved;
}

/* Writes the image to FD, a new and empty file, and notes which file it is. The file belongs to
 * another user after a call of setfsuid(2). */
static bool fill_file(int fd)
{
    return ownfile_identify(fd, &identity) && identity.st_uid == user &&
           ownfile_may_grow(used) &&
           raw_syscall(SYS_pwrite64, fd, image, used, 0) == (long)used;
}

/* AT is an fd of the directory, or AT_FDCWD. */
static bool make_file_in(int at, const char *directory)
{
    const char *name = path;
    int fd;
    bool made;

    name_file(path, directory, image->pid, image->start);
    if (at != AT_FDCWD)
        name += strlen(directory) + 1;
    fd = ownfile_open_at(at, name, O_WRONLY | O_CREAT | O_EXCL);
    if (fd == -EEXIST && is_gone(path, image->pid)) {
        raw_syscall(SYS_unlinkat, at, name, 0);
        fd = ownfile_open_at(at, name, O_WRONLY | O_CREAT | O_EXCL);
    }
    if (fd < 0)
        return false;
    made = fill_file(fd);
    ownfile_close(fd);
    if (made)
        remove_gone(directory);
    else
        raw_syscall(SYS_unlinkat, at, name, 0);
    return made;
}

/* In a directory of our own, which is made if it is not there. Any user may have made what is
 * there, in /tmp: a link, or a directory of that user. So what was opened is looked at, and the
 * file is made there, wherever the path leads by then. */
static bool make_file_in_own(const char *directory)
{
    struct stat found = {0};
    bool made;
    int at;

    raw_syscall(SYS_mkdirat, AT_FDCWD, directory, 0700);
    at = ownfile_open(directory, O_RDONLY | O_DIRECTORY);
    if (at < 0)
        return false;
    made = ownfile_identify(at, &found) && found.st_uid == user &&
           (found.st_mode & 0077) == 0 && make_file_in(at, directory);
    ownfile_close(at);
    return made;
}

/* The user is asked for only now: a server may have given up root since the start. */
static bool make_file(void)
{
    char fallback[sizeof(STATS_FALLBACK) + 10];

    if (image->start == 0 || !is_one_user())
        return false;
    if (make_file_in(AT_FDCWD, settings->stats))
        return true;
    if (settings->stats_instead[0] != '\0' && make_file_in_own(settings->stats_instead))
        return true;
    if (!settings->stats_default)
        return false;
    fmt_print(fallback, sizeof(fallback), STATS_FALLBACK "%u", (unsigned int)user);
    return make_file_in_own(fallback);
}

static bool make_image(void)
{
    image = pages_reserve(STATS_FILE_SIZE(most_slots));
    return image != NULL;
}

static bool make_all(void)
{
    if (!image && !make_image())
        return false;
    used = STATS_FILE_SIZE(1);
    fill_header(image, start_of_this_process());
    return make_file();
}

/* With signals blocked, so that none ends it halfway. SIGXFSZ, which a write beyond
 * RLIMIT_FSIZE raises, is discarded. */
static bool make_quietly(void)
{
    struct ownfile own;
    bool made;

    if (!ownfile_begin(&own))
        return false;
    made = make_all();
    ownfile_end(&own, made ? 0 : -EFBIG, 0);
    return made;
}

/* Makes the file if there is none yet. False when that fails: it is not tried again. */
static bool have_file(void)
{
    if (path[0] != '\0' || make_quietly())
        return true;
    path[0] = '\0';
    atomic_store(&stats_wanted, false);
    return false;
}

void stats_make(void)
{
    if (!stats_begin())
        return;
    if (path[0] == '\0' && have_file()) {
        atomic_store(&stats_state, STATS_WRITTEN);
        atomic_store(&stats_due, 0);
    }
    stats_end();
}

struct stats *stats_publish(size_t slot_number, const char *text)
{
    size_t end = STATS_FILE_SIZE(slot_number + 1);
    struct stats_slot *slot;

    if (!have_file())
        return NULL;
    if (end > used)
        used = end;
    slot = (struct stats_slot *)(image + 1) + slot_number;
    /* Sc, odd while the name is written: a reader that copies the slot now skips it. */
    atomic_fetch_or(&slot->change, 1);
    fmt_print(slot->endpoint, sizeof(slot->endpoint), "%s", text);
    memset((void *)&slot->stats, 0, sizeof(slot->stats));
    atomic_fetch_add(&slot->change, 1);
    atomic_store(&stats_state, STATS_UNWRITTEN);
    atomic_store(&stats_due, 0);
    return &slot->stats;
}

/* Whether FOUND, which is at our path, still is the file that we made. Anything may be there by
 * now. If our inode number was reused, the file belongs to the same user. */
static bool is_our_file(const struct stat *found)
{
    return S_ISREG(found->st_mode) && found->st_ino == identity.st_ino &&
           found->st_dev == identity.st_dev && found->st_uid == identity.st_uid;
}

/* Whether FD, opened at our path, may be written: our file may be a hard link by now. */
static bool may_write(int fd)
{
    struct stat found = {0};

    return ownfile_identify(fd, &found) && is_our_file(&found) && found.st_nlink == 1;
}

static long write_file(void)
{
    int fd = ownfile_open(path, O_WRONLY);
    long result = -ESTALE;

    if (fd < 0)
        return fd;
    if (may_write(fd))
        result = raw_syscall(SYS_pwrite64, fd, image, used, 0);
    ownfile_close(fd);
    return result;
}

static void stop_writing(void)
{
    atomic_store(&stats_state, STATS_NO_FILE);
    atomic_store(&stats_due, NEVER);
}

static void write_quietly(void)
{
    struct ownfile own;

    update_header(image);
    if (ownfile_begin(&own))
        ownfile_end(&own, write_file(), used);
    else
        stop_writing();
}

void stats_write(msec_t now)
{
    if (!owner_is_this_process() || !stats_begin())
        return;
    if (path[0] != '\0') {
        atomic_store(&stats_due, now + STATS_PERIOD);
        /* Before the copy: what is counted during it may be missing in it, and must set
         * STATS_UNWRITTEN again. */
        if (atomic_exchange(&stats_state, STATS_WRITTEN) != STATS_WRITTEN)
            write_quietly();
    }
    stats_end();
}

/* Fills NAME with the name of the switch file. */
static bool read_wish(char *name, struct switch_file *wish)
{
    fmt_print(name, PATH_SIZE, "%s" SWITCH_SUFFIX, path);
    return switch_file_read(name, image, wish);
}

bool stats_read_wish(struct switch_file *wish)
{
    char name[PATH_SIZE];
    bool found;

    if (!stats_begin())
        return false;
    found =
        path[0] != '\0' && read_wish(name, wish) && wish->generation != atomic_load(&followed);
    stats_end();
    return found;
}

void stats_followed(uint64_t generation)
{
    atomic_store(&followed, generation);
    stats_changed();
}

void stats_note_share(enum share now, uint64_t id, const _Atomic uint32_t *queued)
{
    atomic_store(&share, now);
    atomic_store(&family, id);
    atomic_store(&queued_at, queued);
    stats_changed();
}

/* More families than these count as so many. */
#define FAMILIES_MOST 16

struct families {
    char path[PATH_SIZE]; /* the directory, and room for the name of a file */
    size_t directory;     /* how long its path is */
    unsigned int count;
    uint64_t ids[FAMILIES_MOST];
    uint32_t queued[FAMILIES_MOST]; /* the most that a member has written */
};

static void add_family(struct families *found, uint64_t id, uint32_t queued)
{
    unsigned int i = 0;

    while (i < found->count && found->ids[i] != id)
        i++;
    if (i == found->count) {
        found->ids[i] = id;
        found->queued[i] = 0;
        found->count++;
    }
    if (queued > found->queued[i])
        found->queued[i] = queued;
}

static bool note_family(const char *file, void *context)
{
    _Alignas(struct stats_header) char bytes[HEAD_SIZE] = {0};
    const struct stats_header *header = (const void *)bytes;
    struct families *found = context;
    uint64_t start;
    int pid;

    if (!stats_parse_name(file, &pid, &start))
        return true;
    fmt_print(found->path + found->directory, sizeof(found->path) - found->directory, "/%s",
              file);
    if (read_head(found->path, bytes) && header->names_at >= HEAD_SIZE && header->family != 0 &&
        raw_syscall(SYS_kill, pid, 0) != -ESRCH)
        add_family(found, header->family, header->queued);
    found->path[found->directory] = '\0';
    return found->count < FAMILIES_MOST;
}

static unsigned int count_families(unsigned int *queued)
{
    struct families found = {.count = 0};
    struct ownfile own;
    const char *slash = strrchr(path, '/');

    if (!slash || !ownfile_begin(&own))
        return 0;
    found.directory = (size_t)(slash - path);
    memcpy(found.path, path, found.directory);
    add_family(&found, atomic_load(&family), 0);
    for_each_name(found.path, note_family, &found);
    ownfile_end(&own, 0, 0);
    for (unsigned int i = 1; i < found.count; i++)
        *queued += found.queued[i];
    return found.count;
}

unsigned int stats_count_families(unsigned int *queued)
{
    unsigned int count;

    *queued = 0;
    if (!stats_begin())
        return 0;
    count = count_families(queued);
    stats_end();
    return count;
}

void stats_pause(void)
{
    atomic_store(&stats_state, STATS_NO_FILE);
}

void stats_resume(void)
{
    if (atomic_load(&stats_due) != NEVER)
        atomic_store(&stats_state, STATS_UNWRITTEN);
}

/* A gauge is set anew at each change, so it is copied and stays at FROM too. */
static void move_gauge(_Atomic uint64_t *to, _Atomic uint64_t *from)
{
    stats_set(to, stats_read(from));
}

static void move_counter(_Atomic uint64_t *to, _Atomic uint64_t *from)
{
    /* Relaxed: counters are in no order with each other. */
    uint64_t n = atomic_exchange_explicit(from, 0, memory_order_relaxed);

    if (n > 0)
        stats_add(to, n);
}

void stats_move(struct stats *to, struct stats *from)
{
#define STAT(kind, name, text) move_##kind(&to->name, &from->name);
#include "stats/stats.def"
#undef STAT
    for (int i = 0; i < REASON_COUNT; i++) {
        move_counter(&to->refused[i], &from->refused[i]);
        move_counter(&to->discarded[i], &from->discarded[i]);
    }
}

bool stats_after_fork_in_child(void)
{
    atomic_store(&busy, false);
    path[0] = '\0';
    stop_writing();
    atomic_store(&stats_wanted, settings && settings->stats[0] != '\0');
    /* A new mapping is cheaper than to write zeros, for which each page would be copied. */
    return !image ||
           raw_syscall(SYS_mmap, image, STATS_FILE_SIZE(most_slots), PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE, -1,
                       0) == (long)image;
}

/* A process that slept for long follows after the command has gone, which else removes it. */
static void remove_switch_file(void)
{
    struct switch_file wish;
    char name[PATH_SIZE];

    if (read_wish(name, &wish))
        raw_syscall(SYS_unlinkat, AT_FDCWD, name, 0);
}

void stats_finish(void)
{
    struct ownfile own;
    struct stat found = {0};

    if (path[0] == '\0' || !ownfile_begin(&own))
        return;
    if (raw_syscall(SYS_newfstatat, AT_FDCWD, path, &found, AT_SYMLINK_NOFOLLOW) == 0 &&
        is_our_file(&found))
        raw_syscall(SYS_unlinkat, AT_FDCWD, path, 0);
    remove_switch_file();
    ownfile_end(&own, 0, 0);
}
