/* Beside src/main.rs: the same loops over the same channels, between two pinned threads of one process. */
#define _GNU_SOURCE
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "zeroport.h"

/* As there. */
enum { WARM_UP = 400000, TRIPS = 100000, MESSAGES = 1000000, BATCH = 64 };

static char bytes[64];

typedef void half(zp_port port, size_t count);

static void must(zp_status status) {
    if (status != ZP_OK) {
        fprintf(stderr, "%s\n", zp_status_text(status));
        abort();
    }
}

static void pin(int processor) {
    cpu_set_t processors;
    CPU_ZERO(&processors);
    CPU_SET(processor, &processors);
    if (sched_setaffinity(0, sizeof processors, &processors) != 0) abort();
}

/* Has the compiler read the message, and nothing else done. */
static void look(const zp_message *message) {
    __asm__ volatile("" : : "r"(*(const unsigned char *)message->data));
}

static void ask(zp_port port, size_t count) {
    zp_message message;
    for (; count > 0; count--) {
        must(zp_port_post(port, bytes, sizeof bytes));
        must(zp_port_recv(port, &message));
        look(&message);
        zp_message_release(&message);
    }
}

static void answer(zp_port port, size_t count) {
    zp_message message;
    for (; count > 0; count--) {
        must(zp_port_recv(port, &message));
        must(zp_port_post(port, message.data, message.len));
        zp_message_release(&message);
    }
}

static void post(zp_port port, size_t count) {
    for (; count > 0; count--) must(zp_port_post(port, bytes, sizeof bytes));
}

static void receive(zp_port port, size_t count) {
    zp_message message;
    for (; count > 0; count--) {
        must(zp_port_recv(port, &message));
        look(&message);
        zp_message_release(&message);
    }
}

static void post_batches(zp_port port, size_t count) {
    char all[BATCH][sizeof bytes] = {{0}};
    zp_post batch[BATCH] = {{0}};
    size_t i;
    for (i = 0; i < BATCH; i++) {
        batch[i].data = all[i];
        batch[i].len = sizeof all[i];
    }
    for (i = 0; i < count / BATCH; i++) must(zp_port_post_all(port, batch, BATCH, NULL));
}

static void receive_batches(zp_port port, size_t count) {
    zp_message messages[BATCH];
    size_t left = count / BATCH * BATCH, came, i;
    for (; left > 0; left -= came) {
        must(zp_port_recv_all(port, messages, left < BATCH ? left : BATCH, &came));
        for (i = 0; i < came; i++) look(&messages[i]);
        zp_messages_release(messages, came);
    }
}

static zp_port ports[2];
static half *here, *there;
static size_t count;
/* Who posts to a thread that has yet to start fills the ring, and measures a larger one. */
static pthread_barrier_t both;

static void *other(void *unused) {
    pin(1);
    pthread_barrier_wait(&both);
    there(ports[1], count < WARM_UP ? count : WARM_UP);
    there(ports[1], count);
    return unused;
}

static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * 1e9 + time.tv_nsec;
}

int main(int argc, char **argv) {
    zp_channel_options options = ZP_CHANNEL_OPTIONS_INIT;
    const char *name = argc > 1 ? argv[1] : "";
    pthread_t thread;
    double start;
    if (strcmp(name, "round-trip") == 0) {
        here = ask, there = answer, count = TRIPS;
    } else if (strcmp(name, "stream") == 0) {
        here = post, there = receive, count = MESSAGES;
    } else if (strcmp(name, "batched") == 0) {
        here = post_batches, there = receive_batches, count = MESSAGES;
    } else {
        fprintf(stderr, "round-trip, stream or batched?\n");
        return 1;
    }
    options.wait = ZP_WAIT_SPIN;
    must(zp_channel_new(ports, &options));
    if (pthread_barrier_init(&both, NULL, 2) != 0) abort();
    if (pthread_create(&thread, NULL, other, NULL) != 0) abort();
    pin(0);
    pthread_barrier_wait(&both);
    here(ports[0], count < WARM_UP ? count : WARM_UP);
    start = now();
    here(ports[0], count);
    pthread_join(thread, NULL);
    printf("%.2f\n", (now() - start) / count);
    return 0;
}
