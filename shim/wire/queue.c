/*
 * The queue of requests that wait for their replies. It is run-length coded: ten thousand
 * pipelined gets take one entry.
 */
#include "wire/internal.h"

static struct wire_run *run_at(struct wire_queue *queue, unsigned index)
{
    return &queue->runs[(queue->first + index) % WIRE_RUNS];
}

struct wire_run *queue_at(struct wire_queue *queue, unsigned index)
{
    return index < queue->used ? run_at(queue, index) : NULL;
}

static inline void push(struct wire *wire, struct wire_run run)
{
    struct wire_queue *queue = &wire->queue;
    struct wire_run *tail = queue->used > 0 ? run_at(queue, queue->used - 1u) : NULL;

    if (tail && tail->class == run.class && tail->quiet == run.quiet &&
        tail->count <= UINT32_MAX - run.count) {
        tail->count += run.count;
    } else if (queue->used < WIRE_RUNS) {
        *run_at(queue, queue->used) = run;
        queue->used++;
    } else {
        wire_poison(wire, REASON_TOO_DEEP);
    }
}

void queue_push(struct wire *wire, uint8_t class, bool quiet)
{
    push(wire, (struct wire_run){.class = class, .quiet = quiet, .count = 1});
}

void queue_push_all(struct wire *wire, const struct wire_queue *asked)
{
    for (unsigned i = 0; i < asked->used; i++)
        push(wire, asked->runs[(asked->first + i) % WIRE_RUNS]);
}

void queue_drop(struct wire_queue *queue)
{
    queue->used--;
    /* An empty queue begins at entry 0 again, which is in the processor's cache. */
    queue->first = (uint8_t)(queue->used == 0 ? 0 : (queue->first + 1) % WIRE_RUNS);
}

void queue_pop(struct wire_queue *queue)
{
    if (--run_at(queue, 0)->count == 0)
        queue_drop(queue);
}

bool queue_holds(const struct wire_queue *queue, bool quiet)
{
    for (unsigned i = 0; i < queue->used; i++) {
        if (queue->runs[(queue->first + i) % WIRE_RUNS].quiet == quiet)
            return true;
    }
    return false;
}
