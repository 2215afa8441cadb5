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

static uint32_t flags;

static int is(const zp_message *message, const char *word) {
    return message->len >= strlen(word) && memcmp(message->data, word, strlen(word)) == 0;
}

static zp_status post(zp_port port, const char *text) {
    return zp_port_post(port, text, strlen(text), NULL, 0, NULL);
}

static zp_status echo(zp_port port, const zp_message *request) {
    return zp_port_post(port, request->data, request->len, NULL, 0, NULL);
}

static zp_status count(zp_message *request) {
    zp_port reply;
    size_t taken;
    int number;
    zp_status status = zp_message_take_ports(request, &reply, 1, &taken);
    if (status != ZP_OK || taken != 1) return status;
    for (number = 1; status == ZP_OK && number <= 10; number++) {
        char text[8];
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
    return zp_port_post(port, "back", 4, ports, taken, NULL);
}

static zp_status open(zp_port port) {
    zp_port ends[2];
    zp_message message;
    zp_status status = zp_channel_new(ends, flags);
    if (status != ZP_OK) return status;
    status = post(ends[0], "from C");
    if (status == ZP_OK) status = zp_port_post(port, "open", 4, &ends[1], 1, NULL);
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
    flags = argc > 1 && strcmp(argv[1], "untrusted") == 0 ? ZP_UNTRUSTED : 0;
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
