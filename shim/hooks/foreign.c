/*
 * Looks a function up in the tables of the loaded objects, as the loader does (ELF gABI,
 * "Dynamic Section"; GNU hash table; LSB, "Symbol Versioning"). dlsym() will not do: it waits
 * for a dlopen() of another thread, which may wait for this one, and it needs a handle for an
 * object that was loaded with RTLD_LOCAL.
 */
#include "hooks/foreign.h"

#include <link.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define VERSION_HIDDEN 0x8000 /* in an entry of DT_VERSYM: not the default version */

struct wanted {
    const char *name;
    const char *version;
    uint32_t hash;
    void *found;
};

struct tables {
    const char *strings;
    const ElfW(Sym) * symbols;
    const uint32_t *hash;
    const ElfW(Versym) * versions;
    const ElfW(Verdef) * definitions;
};

static uint32_t gnu_hash(const char *name)
{
    uint32_t hash = 5381;

    for (; *name; name++)
        hash = hash * 33 + (unsigned char)*name;
    return hash;
}

/* The entry of a dynamic section: glibc has replaced the offset by an address, except where the
 * section is read-only. */
static const void *table_at(uintptr_t base, uintptr_t value)
{
    return (const void *)(value < base ? base + value : value);
}

static struct tables tables_of(uintptr_t base, const void *section)
{
    const ElfW(Dyn) *entry = section;
    struct tables tables = {0};

    for (; entry->d_tag != DT_NULL; entry++) {
        const void *table = table_at(base, entry->d_un.d_ptr);

        if (entry->d_tag == DT_STRTAB)
            tables.strings = table;
        else if (entry->d_tag == DT_SYMTAB)
            tables.symbols = table;
        else if (entry->d_tag == DT_GNU_HASH)
            tables.hash = table;
        else if (entry->d_tag == DT_VERSYM)
            tables.versions = table;
        else if (entry->d_tag == DT_VERDEF)
            tables.definitions = table;
    }
    return tables;
}

static bool is_version(const struct tables *tables, unsigned int index, const char *version)
{
    const ElfW(Verdef) *definition = tables->definitions;
    const ElfW(Verdaux) * name;

    if (!version)
        return index > VER_NDX_GLOBAL; /* our own hooks have no version */
    while (definition->vd_ndx != index) {
        if (definition->vd_next == 0)
            return false;
        definition = (const void *)((const char *)definition + definition->vd_next);
    }
    name = (const void *)((const char *)definition + definition->vd_aux);
    return strcmp(tables->strings + name->vda_name, version) == 0;
}

static bool is_wanted(const struct tables *tables, uint32_t at, const struct wanted *wanted)
{
    const ElfW(Sym) *symbol = &tables->symbols[at];

    return symbol->st_shndx != SHN_UNDEF && (symbol->st_info & 0xf) == STT_FUNC &&
           strcmp(tables->strings + symbol->st_name, wanted->name) == 0 &&
           !(tables->versions[at] & VERSION_HIDDEN) &&
           is_version(tables, tables->versions[at], wanted->version);
}

/* The index of the wanted symbol, 0 when the object does not define it. */
static uint32_t look_up(const struct tables *tables, const struct wanted *wanted)
{
    uint32_t buckets = tables->hash[0], first = tables->hash[1], bloom = tables->hash[2];
    const uint32_t *bucket = tables->hash + 4 + bloom * (sizeof(ElfW(Addr)) / sizeof(uint32_t));
    const uint32_t *chain = bucket + buckets;
    uint32_t at = bucket[wanted->hash % buckets];

    if (at < first)
        return 0;
    while (true) {
        uint32_t hash = chain[at - first];

        if ((hash | 1) == (wanted->hash | 1) && is_wanted(tables, at, wanted))
            return at;
        if (hash & 1)
            return 0;
        at++;
    }
}

static int look_into(struct dl_phdr_info *object, size_t size, void *argument)
{
    struct wanted *wanted = argument;
    struct tables tables = {0};
    uint32_t at;

    (void)size;
    for (int i = 0; i < object->dlpi_phnum; i++) {
        const ElfW(Phdr) *segment = &object->dlpi_phdr[i];

        if (segment->p_type == PT_DYNAMIC)
            tables = tables_of(object->dlpi_addr,
                               (const void *)(object->dlpi_addr + segment->p_vaddr));
    }
    if (!tables.strings || !tables.symbols || !tables.hash || !tables.versions ||
        !tables.definitions)
        return 0;
    at = look_up(&tables, wanted);
    if (at == 0)
        return 0;
    wanted->found = (void *)(object->dlpi_addr + tables.symbols[at].st_value);
    return 1;
}

void *foreign_find(const char *name, const char *version)
{
    struct wanted wanted = {name, version, gnu_hash(name), NULL};

    dl_iterate_phdr(look_into, &wanted);
    return wanted.found;
}
