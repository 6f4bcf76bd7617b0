/*
 * The queue of requests that wait for their replies. It is run-length coded: ten thousand
 * pipelined gets take one entry.
 */
#include "wire/internal.h"

void queue_push_run(struct wire *wire, struct wire_run run)
{
    struct wire_queue *queue = &wire->queue;
    struct wire_run *tail = queue->used > 0 ? queue_run(queue, queue->used - 1u) : NULL;

    if (tail && tail->class == run.class && tail->quiet == run.quiet &&
        tail->count <= UINT32_MAX - run.count) {
        tail->count += run.count;
    } else if (queue->used < WIRE_RUNS) {
        *queue_run(queue, queue->used) = run;
        queue->used++;
    } else {
        wire_poison(wire, REASON_TOO_DEEP);
    }
}

void queue_push(struct wire *wire, uint8_t class, bool quiet)
{
    queue_push_run(wire, (struct wire_run){.class = class, .quiet = quiet, .count = 1});
}

void queue_push_all(struct wire *wire, const struct wire_queue *asked)
{
    for (unsigned i = 0; i < asked->used; i++)
        queue_push_run(wire, asked->runs[(asked->first + i) % WIRE_RUNS]);
}

bool queue_holds(const struct wire_queue *queue, bool quiet)
{
    for (unsigned i = 0; i < queue->used; i++) {
        if (queue->runs[(queue->first + i) % WIRE_RUNS].quiet == quiet)
            return true;
    }
    return false;
}
