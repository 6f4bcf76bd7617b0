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

struct lookup_object {
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

/* The tables of an object. False when it has none in which a name could be found. */
static bool read_tables(const struct dl_phdr_info *info, struct lookup_object *object)
{
    const ElfW(Dyn) *entry = NULL;

    *object = (struct lookup_object){.base = info->dlpi_addr};
    for (int i = 0; i < info->dlpi_phnum; i++) {
        if (info->dlpi_phdr[i].p_type == PT_DYNAMIC)
            entry = (const void *)(info->dlpi_addr + info->dlpi_phdr[i].p_vaddr);
    }
    for (; entry && entry->d_tag != DT_NULL; entry++) {
        const void *table = table_at(info->dlpi_addr, entry->d_un.d_ptr);

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

static bool is_ours(const struct dl_phdr_info *info)
{
    for (int i = 0; i < info->dlpi_phnum; i++) {
        if (info->dlpi_phdr[i].p_type == PT_DYNAMIC)
            return info->dlpi_addr + info->dlpi_phdr[i].p_vaddr == (uintptr_t)_DYNAMIC;
    }
    return false;
}

/* Whether INDEX stands for a version that is wanted. */
static bool is_version(const struct lookup_object *object, unsigned int index,
                       const char *version)
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

static bool is_wanted(const struct lookup_object *object, uint32_t at,
                      const struct wanted *wanted)
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
static uint32_t find_by_gnu_hash(const struct lookup_object *object,
                                 const struct wanted *wanted)
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

static uint32_t find_by_old_hash(const struct lookup_object *object,
                                 const struct wanted *wanted)
{
    uint32_t buckets = object->hash[0];
    const uint32_t *bucket = object->hash + 2;
    const uint32_t *chain = bucket + buckets;
    uint32_t at = bucket[old_hash(wanted->name) % buckets];

    while (at != 0 && !is_wanted(object, at, wanted))
        at = chain[at];
    return at;
}

static void *find(const struct lookup_object *object, const struct wanted *wanted)
{
    uint32_t at =
        object->gnu_hash ? find_by_gnu_hash(object, wanted) : find_by_old_hash(object, wanted);

    return at == 0 ? NULL : (void *)(object->base + object->symbols[at].st_value);
}

void *lookup_in(const struct lookup_object *object, const char *name)
{
    return find(object, &(struct wanted){.name = name});
}

struct walk {
    void (*each)(const struct lookup_object *object);
    bool behind;
};

static int walk_on(struct dl_phdr_info *info, size_t size, void *argument)
{
    struct walk *walk = argument;
    struct lookup_object object;

    (void)size;
    if (!walk->behind)
        walk->behind = is_ours(info);
    else if (read_tables(info, &object))
        walk->each(&object);
    return 0;
}

void lookup_behind_us(void (*each)(const struct lookup_object *object))
{
    dl_iterate_phdr(walk_on, &(struct walk){.each = each});
}

struct search {
    struct wanted wanted;
    bool behind;
    void *found;
};

static int search_on(struct dl_phdr_info *info, size_t size, void *argument)
{
    struct search *search = argument;
    struct lookup_object object;

    (void)size;
    if (!search->behind)
        search->behind = is_ours(info);
    else if (read_tables(info, &object))
        search->found = find(&object, &search->wanted);
    return search->found != NULL;
}

void *lookup_next(const char *name)
{
    struct search search = {.wanted = {.name = name}};

    dl_iterate_phdr(search_on, &search);
    return search.found;
}

void *lookup_versioned(const char *name, const char *version)
{
    struct search search = {.wanted = {name, true, version}, .behind = true};

    dl_iterate_phdr(search_on, &search);
    return search.found;
}
