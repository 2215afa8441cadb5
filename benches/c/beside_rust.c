/* The loops of src/main.rs in C. It loads them twice: with the static library in them, and with the shared one as it is
 * installed. */
#include <stdio.h>
#include <stdlib.h>

#include "zeroport.h"

/* As there. */
enum { BATCH = 64 };

static char bytes[64];

static void must(zp_status status) {
    if (status != ZP_OK) {
        fprintf(stderr, "%s\n", zp_status_text(status));
        abort();
    }
}

void open_channel(zp_port ports[2]) {
    zp_channel_options options = ZP_CHANNEL_OPTIONS_INIT;
    options.wait = ZP_WAIT_SPIN;
    must(zp_channel_new(ports, &options));
}

/* Has the compiler read the message, and nothing else done. */
static void look(const zp_message *message) {
    __asm__ volatile("" : : "r"(*(const unsigned char *)message->data));
}

void ask(zp_port port, size_t count) {
    zp_message message;
    for (; count > 0; count--) {
        must(zp_port_post(port, bytes, sizeof bytes));
        must(zp_port_recv(port, &message));
        look(&message);
        zp_message_release(&message);
    }
}

void answer(zp_port port, size_t count) {
    zp_message message;
    for (; count > 0; count--) {
        must(zp_port_recv(port, &message));
        must(zp_port_post(port, message.data, message.len));
        zp_message_release(&message);
    }
}

void post(zp_port port, size_t count) {
    for (; count > 0; count--) must(zp_port_post(port, bytes, sizeof bytes));
}

void receive(zp_port port, size_t count) {
    zp_message message;
    for (; count > 0; count--) {
        must(zp_port_recv(port, &message));
        look(&message);
        zp_message_release(&message);
    }
}

void post_batches(zp_port port, size_t count) {
    char all[BATCH][sizeof bytes] = {{0}};
    zp_post batch[BATCH] = {{0}};
    size_t i;
    for (i = 0; i < BATCH; i++) {
        batch[i].data = all[i];
        batch[i].len = sizeof all[i];
    }
    for (i = 0; i < count / BATCH; i++) must(zp_port_post_all(port, batch, BATCH, NULL));
}

void receive_batches(zp_port port, size_t count) {
    zp_message messages[BATCH];
    size_t left = count / BATCH * BATCH, came, i;
    for (; left > 0; left -= came) {
        must(zp_port_recv_all(port, messages, left < BATCH ? left : BATCH, &came));
        for (i = 0; i < came; i++) look(&messages[i]);
        zp_messages_release(messages, came);
    }
}
