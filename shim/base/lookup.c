/*
 * Looks functions up as the loader does: ELF gABI, "Dynamic Section" and "Hash Table"; GNU hash
 * table; LSB, "Symbol Versioning".
 */
#include "base/lookup.h"

#include <link.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define VERSION_HIDDEN 0x8000 /* in an entry of DT_VERSYM: not the default version */

/* Where an object is loaded, and its dynamic section. */
struct place {
    uintptr_t base;
    const ElfW(Dyn) * dynamic;
};

/* The tables of an object. */
struct object {
    uintptr_t base;
    const char *strings;
    const ElfW(Sym) * symbols;
    const uint32_t *gnu_hash;
    const uint32_t *hash;
    const ElfW(Versym) * versions;
    const ElfW(Verdef) * definitions;
};

struct wanted {
    const char *name;
    bool versioned;      /* only symbols that have a version count */
    const char *version; /* NULL: any */
};

/* Our own dynamic section, by the linker's name. */
/* NOLINTNEXTLINE(*-reserved-identifier,cert-dcl*,*-redundant-declaration) */
extern ElfW(Dyn) _DYNAMIC[] __attribute__((visibility("hidden")));

static uint32_t gnu_hash(const char *name)
{
    uint32_t hash = 5381;

    for (; *name; name++)
        hash = hash * 33 + (unsigned char)*name;
    return hash;
}

static uint32_t old_hash(const char *name)
{
    uint32_t hash = 0;

    for (; *name; name++) {
        hash = (hash << 4) + (unsigned char)*name;
        hash ^= hash >> 24 & 0xf0;
    }
    return hash & 0xfffffff;
}

/* The entry of a dynamic section: glibc has replaced the offset by an address, except where the
 * section is read-only. */
static const void *table_at(uintptr_t base, uintptr_t value)
{
    return (const void *)(value < base ? base + value : value);
}

/* The tables of the object at PLACE. False when it has none in which a name could be found. */
static bool read_tables(const struct place *place, struct object *object)
{
    const ElfW(Dyn) *entry = place->dynamic;

    *object = (struct object){.base = place->base};
    for (; entry && entry->d_tag != DT_NULL; entry++) {
        const void *table = table_at(place->base, entry->d_un.d_ptr);

        if (entry->d_tag == DT_STRTAB)
            object->strings = table;
        else if (entry->d_tag == DT_SYMTAB)
            object->symbols = table;
        else if (entry->d_tag == DT_GNU_HASH)
            object->gnu_hash = table;
        else if (entry->d_tag == DT_HASH)
            object->hash = table;
        else if (entry->d_tag == DT_VERSYM)
            object->versions = table;
        else if (entry->d_tag == DT_VERDEF)
            object->definitions = table;
    }
    return object->strings && object->symbols && (object->gnu_hash || object->hash);
}

static struct place place_of(const struct dl_phdr_info *info)
{
    struct place place = {info->dlpi_addr, NULL};

    for (int i = 0; i < info->dlpi_phnum; i++) {
        if (info->dlpi_phdr[i].p_type == PT_DYNAMIC)
            place.dynamic = (const void *)(info->dlpi_addr + info->dlpi_phdr[i].p_vaddr);
    }
    return place;
}

/* Whether INDEX stands for a version that is wanted. */
static bool is_version(const struct object *object, unsigned int index, const char *version)
{
    const ElfW(Verdef) *definition = object->definitions;
    const ElfW(Verdaux) * name;

    if (!version)
        return index > VER_NDX_GLOBAL;
    if (!definition)
        return false;
    while (definition->vd_ndx != index) {
        if (definition->vd_next == 0)
            return false;
        definition = (const void *)((const char *)definition + definition->vd_next);
    }
    name = (const void *)((const char *)definition + definition->vd_aux);
    return strcmp(object->strings + name->vda_name, version) == 0;
}

static bool is_wanted(const struct object *object, uint32_t at, const struct wanted *wanted)
{
    const ElfW(Sym) *symbol = &object->symbols[at];
    unsigned int type = symbol->st_info & 0xf;
    unsigned int version = object->versions ? object->versions[at] : VER_NDX_GLOBAL;

    return symbol->st_shndx != SHN_UNDEF && symbol->st_value != 0 &&
           (type == STT_FUNC || type == STT_OBJECT || type == STT_NOTYPE) &&
           strcmp(object->strings + symbol->st_name, wanted->name) == 0 &&
           !(version & VERSION_HIDDEN) &&
           (!wanted->versioned || is_version(object, version, wanted->version));
}

/* The index of the wanted symbol, 0 when the object does not define it. */
static uint32_t find_by_gnu_hash(const struct object *object, const struct wanted *wanted)
{
    enum { WORD = 8 * sizeof(ElfW(Addr)) };
    const uint32_t *table = object->gnu_hash;
    uint32_t buckets = table[0], first = table[1], words = table[2], shift = table[3];
    const ElfW(Addr) *bloom = (const void *)(table + 4);
    const uint32_t *bucket = (const void *)(bloom + words);
    const uint32_t *chain = bucket + buckets;
    uint32_t hash = gnu_hash(wanted->name), at;
    ElfW(Addr) word = bloom[hash / WORD & (words - 1)];

    if (!(word >> (hash % WORD) & word >> ((hash >> shift) % WORD) & 1))
        return 0;
    at = bucket[hash % buckets];
    if (at < first)
        return 0;
    while (true) {
        uint32_t other = chain[at - first];

        if ((other | 1) == (hash | 1) && is_wanted(object, at, wanted))
            return at;
        if (other & 1)
            return 0;
        at++;
    }
}

static uint32_t find_by_old_hash(const struct object *object, const struct wanted *wanted)
{
    uint32_t buckets = object->hash[0];
    const uint32_t *bucket = object->hash + 2;
    const uint32_t *chain = bucket + buckets;
    uint32_t at = bucket[old_hash(wanted->name) % buckets];

    while (at != 0 && !is_wanted(object, at, wanted))
        at = chain[at];
    return at;
}

static void *find(const struct object *object, const struct wanted *wanted)
{
    uint32_t at =
        object->gnu_hash ? find_by_gnu_hash(object, wanted) : find_by_old_hash(object, wanted);

    return at == 0 ? NULL : (void *)(object->base + object->symbols[at].st_value);
}

/* The objects that were loaded with the program, in their order. They stay loaded, so the list
 * can be read at any time and without a lock. Empty: it is not to be used. */
#define NOTED_MOST 96
static AT_START struct place noted[NOTED_MOST];
static AT_START size_t noted_count;
static AT_START size_t noted_behind; /* the index of the first one behind us */
static AT_START size_t noted_libc;   /* the index of libc */

struct notes {
    size_t count, ours;
    bool has_loader; /* the first object, which is the program, names a loader */
};

static int note_on(struct dl_phdr_info *info, size_t size, void *argument)
{
    struct notes *notes = argument;

    (void)size;
    if (notes->count == NOTED_MOST)
        return 1;
    for (int i = 0; notes->count == 0 && i < info->dlpi_phnum; i++)
        notes->has_loader |= info->dlpi_phdr[i].p_type == PT_INTERP;
    noted[notes->count] = place_of(info);
    if (noted[notes->count].dynamic == _DYNAMIC)
        notes->ours = notes->count;
    notes->count++;
    return 0;
}

/* The index of the object that has ADDRESS. */
static size_t noted_at(uintptr_t address, size_t count)
{
    size_t best = 0;

    for (size_t i = 1; i < count; i++) {
        if (noted[i].base <= address &&
            (noted[i].base > noted[best].base || noted[best].base > address))
            best = i;
    }
    return best;
}

/* Objects that dlopen() loads come behind all others, and libc comes with the program. So if
 * libc is behind us, we have come with the program as well, unless that is linked statically.
 */
bool lookup_note_objects(void)
{
    struct notes notes = {0, NOTED_MOST, false};

    if (dl_iterate_phdr(note_on, &notes) != 0 || !notes.has_loader)
        return false;
    noted_libc = noted_at((uintptr_t)&dl_iterate_phdr, notes.count);
    if (noted_libc <= notes.ours)
        return false;
    noted_behind = notes.ours + 1;
    noted_count = notes.count;
    return true;
}

static void *find_in(const struct place *place, const struct wanted *wanted)
{
    struct object object;

    return read_tables(place, &object) ? find(&object, wanted) : NULL;
}

static void *find_noted(size_t from, const struct wanted *wanted)
{
    void *found = NULL;

    for (size_t i = from; i < noted_count && !found; i++)
        found = find_in(&noted[i], wanted);
    return found;
}

struct search {
    struct wanted wanted;
    bool behind;
    void *found;
};

static int search_on(struct dl_phdr_info *info, size_t size, void *argument)
{
    struct search *search = argument;
    struct place place = place_of(info);

    (void)size;
    if (search->behind)
        search->found = find_in(&place, &search->wanted);
    else
        search->behind = place.dynamic == _DYNAMIC;
    return search->found != NULL;
}

void *lookup_next(const char *name)
{
    struct search search = {.wanted = {.name = name}};

    if (noted_count > 0)
        return find_noted(noted_behind, &search.wanted);
    dl_iterate_phdr(search_on, &search);
    return search.found;
}

void *lookup_versioned(const char *name, const char *version)
{
    struct search search = {.wanted = {name, true, version}, .behind = true};

    /* Nearly always what is wanted is in libc. */
    if (noted_count > 0)
        search.found = find_in(&noted[noted_libc], &search.wanted);
    if (!search.found)
        search.found = find_noted(0, &search.wanted);
    if (!search.found)
        dl_iterate_phdr(search_on, &search);
    return search.found;
}
