/*
 * Writes the dialogues of tests/unit/wire_vectors.c as inputs of wire_fuzz.c: make_corpus
 * FOLDER. The folders text, meta and binary exist below FOLDER.
 */
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../unit/wire_vectors.h"

#define LONGEST    0x7f
#define SIZE_LIMIT 2000

static bool has_meta(const struct wire_vector *vector)
{
    static const char *const names[] = {"mg ", "ms ", "md ", "ma "};

    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        if (vector->steps[0].length >= 3 && memcmp(vector->steps[0].bytes, names[i], 3) == 0)
            return true;
    }
    return false;
}

static const char *kind_of(const struct wire_vector *vector)
{
    if (vector->steps[0].length > 0 && vector->steps[0].bytes[0] == '\x80')
        return "binary";
    return has_meta(vector) ? "meta" : "text";
}

static size_t size_of(const struct wire_vector *vector)
{
    size_t size = 0;

    for (size_t i = 0; i < WIRE_STEPS && vector->steps[i].direction; i++)
        size += vector->steps[i].length;
    return size;
}

static void write_step(FILE *file, const struct wire_step *step)
{
    for (size_t at = 0, n; at < step->length; at += n) {
        n = step->length - at < LONGEST ? step->length - at : LONGEST;
        fputc((int)n | (step->direction == '<' ? 0x80 : 0), file);
        fwrite(step->bytes + at, 1, n, file);
    }
}

int main(int argc, char **argv)
{
    if (argc != 2)
        return 2;
    for (size_t i = 0; i < wire_vector_count; i++) {
        const struct wire_vector *vector = &wire_vectors[i];
        char path[4096];
        FILE *file;

        if (size_of(vector) > SIZE_LIMIT)
            continue;
        snprintf(path, sizeof(path), "%s/%s/vector-%03zu", argv[1], kind_of(vector), i);
        file = fopen(path, "w");
        if (!file) {
            perror(path);
            return 1;
        }
        for (size_t step = 0; step < WIRE_STEPS && vector->steps[step].direction; step++)
            write_step(file, &vector->steps[step]);
        fclose(file);
    }
    return 0;
}
