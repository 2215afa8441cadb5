/*
 * A server in C, started by a Rust program. It answers each request on its parent port:
 *
 *      echo...         the same bytes
 *      count + port    ten replies on that port, which is then closed
 *      back + ports    the same ports
 *      open            an end of a fresh channel, with a message in it; then echoes on the other
 *
 * and ends, with status 0, when the Rust program closes its port. "untrusted" as its first
 * argument: the channels that it makes are for strangers.
 */
#include <stdio.h>
#include <string.h>

#include "zeroport.h"

enum { MOST_PORTS = 100 };

static uint32_t trust = ZP_TRUST_TRUSTED;

static int is(const zp_message *message, const char *word) {
    return message->len >= strlen(word) && memcmp(message->data, word, strlen(word)) == 0;
}

static zp_status post(zp_port port, const char *text) {
    return zp_port_post(port, text, strlen(text));
}

/* Posts a word and gives ports away with it. */
static zp_status give(zp_port port, const char *text, const zp_port *ports, size_t count) {
    zp_item items[MOST_PORTS];
    zp_post post = {0};
    size_t index;
    for (index = 0; index < count; index++) items[index].id = ports[index].id;
    post.data = text;
    post.len = strlen(text);
    post.items = items;
    post.item_count = count;
    return zp_port_post_with(port, &post, NULL);
}

static zp_status echo(zp_port port, const zp_message *request) {
    return zp_port_post(port, request->data, request->len);
}

static zp_status count(zp_message *request) {
    zp_port reply;
    size_t taken;
    int number;
    zp_status status = zp_message_take_ports(request, &reply, 1, &taken);
    if (status != ZP_OK || taken != 1) return status;
    for (number = 1; status == ZP_OK && number <= 10; number++) {
        char text[12];
        sprintf(text, "%d", number);
        status = post(reply, text);
    }
    zp_port_close(reply);
    return status;
}

static zp_status back(zp_port port, zp_message *request) {
    zp_port ports[MOST_PORTS];
    size_t taken;
    zp_status status = zp_message_take_ports(request, ports, MOST_PORTS, &taken);
    if (status != ZP_OK) return status;
    return give(port, "back", ports, taken);
}

static zp_status open(zp_port port) {
    zp_port ends[2];
    zp_message message;
    zp_channel_options options = ZP_CHANNEL_OPTIONS_INIT;
    zp_status status;
    options.trust = trust;
    status = zp_channel_new(ends, &options);
    if (status != ZP_OK) return status;
    status = post(ends[0], "from C");
    if (status == ZP_OK) status = give(port, "open", &ends[1], 1);
    if (status != ZP_OK) zp_port_close(ends[1]);
    while (status == ZP_OK && (status = zp_port_recv(ends[0], &message)) == ZP_OK) {
        status = echo(ends[0], &message);
        zp_message_release(&message);
    }
    zp_port_close(ends[0]);
    return status == ZP_CLOSED ? ZP_OK : status;
}

static zp_status answer(zp_port port, zp_message *request) {
    if (is(request, "echo")) return echo(port, request);
    if (is(request, "count")) return count(request);
    if (is(request, "back")) return back(port, request);
    if (is(request, "open")) return open(port);
    return ZP_INTERNAL;
}

int main(int argc, char **argv) {
    zp_port parent;
    zp_message request;
    zp_status status = zp_parent_port(&parent);
    if (argc > 1 && strcmp(argv[1], "untrusted") == 0) trust = ZP_TRUST_UNTRUSTED;
    while (status == ZP_OK && (status = zp_port_recv(parent, &request)) == ZP_OK) {
        status = answer(parent, &request);
        zp_message_release(&request);
    }
    if (status != ZP_CLOSED) {
        fprintf(stderr, "serve: %s\n", zp_status_text(status));
        return 1;
    }
    return zp_port_close(parent) == ZP_OK ? 0 : 2;
}
