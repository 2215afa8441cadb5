/*
 * A worker for the clients of examples/worker.rs: they are in Rust, it is in C, and the messages are
 * the same plain data. It counts lines, words and bytes of what each client posts, as wc does.
 *
 *      cargo run --release --example worker -- --worker-program ./worker
 *
 *      main --------> worker       struct new_client, with two ports: the client's, and one for
 *      main <-------- worker       struct ended
 *      client ------> worker       bytes, struct end_of_file, struct mark
 *      client <------ worker       struct counts, struct mark
 *
 * One thread serves all of them: a loop calls handlers, until main and all clients have gone.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zeroport.h>

/* ---- The messages, as in worker.rs ---- */

struct new_client {
    uint64_t client;
};

struct ended {
    uint64_t client;
    uint64_t reason; /* 0: closed, 1: died, 2: lost, 3: broke the protocol */
    uint64_t messages;
};

struct end_of_file {
    uint64_t file;
};

struct counts {
    uint64_t file;
    uint64_t lines;
    uint64_t words;
    uint64_t bytes;
};

struct mark {
    uint64_t number;
};

static struct {
    uint32_t new_client, ended, end_of_file, counts, mark;
} tags;

/* A type goes by its name, size and alignment. */
static void name_types(void) {
    const uint64_t align = sizeof(uint64_t);
    tags.new_client = zp_tag_of_plain_data("worker.NewClient", sizeof(struct new_client), align);
    tags.ended = zp_tag_of_plain_data("worker.Ended", sizeof(struct ended), align);
    tags.end_of_file = zp_tag_of_plain_data("worker.EndOfFile", sizeof(struct end_of_file), align);
    tags.counts = zp_tag_of_plain_data("worker.Counts", sizeof(struct counts), align);
    tags.mark = zp_tag_of_plain_data("worker.Mark", sizeof(struct mark), align);
}

/* Copies a message if it is of that type. */
static int get(const zp_message *message, uint32_t tag, void *value, size_t size) {
    if (message->tag != tag || message->len != size) return 0;
    memcpy(value, message->data, size);
    return 1;
}

static zp_status post(zp_port port, uint32_t tag, const void *value, size_t size) {
    zp_post post = {0};
    post.data = value;
    post.len = size;
    post.tag = tag;
    return zp_port_post_with(port, &post, NULL);
}

/* ---- What the worker knows ---- */

struct worker {
    zp_loop loop;
    int failed;
};

struct client {
    struct worker *worker;
    uint64_t number;
    zp_port tell; /* main waits there for how it has ended */
    uint64_t messages;
    struct counts counts;
    int in_word; /* a word may begin in one message and end in the next */
};

static void fail(struct worker *worker, const char *what, const char *why) {
    fprintf(stderr, "worker: %s: %s\n", what, why);
    worker->failed = 1;
    zp_loop_stop(worker->loop);
}

/* ---- A client ---- */

static void count(struct client *client, const unsigned char *bytes, size_t len) {
    size_t at;
    client->counts.bytes += len;
    for (at = 0; at < len; at++) {
        /* isspace in the C locale */
        int in_word = !(bytes[at] == ' ' || (bytes[at] >= '\t' && bytes[at] <= '\r'));
        client->counts.lines += bytes[at] == '\n';
        client->counts.words += in_word && !client->in_word;
        client->in_word = in_word;
    }
}

static void client_message(void *user, zp_port port, zp_message *message) {
    struct client *client = user;
    struct mark mark;
    struct end_of_file end;
    zp_status status = ZP_OK;

    client->messages++;
    if (get(message, tags.mark, &mark, sizeof mark)) {
        status = post(port, tags.mark, &mark, sizeof mark);
    } else if (get(message, tags.end_of_file, &end, sizeof end)) {
        client->counts.file = end.file;
        status = post(port, tags.counts, &client->counts, sizeof client->counts);
        memset(&client->counts, 0, sizeof client->counts);
        client->in_word = 0;
    } else {
        count(client, message->data, message->len);
    }
    /* If nobody is left to read the answer, the end comes after what is still to be received. */
    if (status != ZP_OK && zp_port_peer_state(port) == ZP_OK)
        fail(client->worker, "cannot answer", zp_status_text(status));
}

static void client_closed(void *user, zp_port port, zp_status reason) {
    struct client *client = user;
    struct ended ended;
    zp_status status;

    (void)port;
    ended.client = client->number;
    ended.reason = reason - ZP_CLOSED; /* they are in the same order */
    ended.messages = client->messages;
    status = post(client->tell, tags.ended, &ended, sizeof ended);
    if (status != ZP_OK) fail(client->worker, "cannot tell of an end", zp_status_text(status));
}

static void client_failed(void *user, zp_port port, zp_status status) {
    struct client *client = user;
    (void)port;
    fail(client->worker, "cannot receive from a client", zp_status_text(status));
}

static void client_removed(void *user) {
    struct client *client = user;
    zp_port_close(client->tell);
    free(client);
}

static zp_status add_client(struct worker *worker, uint64_t number, zp_port port, zp_port tell) {
    const zp_handlers handlers = {sizeof handlers, client_message, client_closed, client_failed,
                                  client_removed};
    struct client *client = calloc(1, sizeof *client);
    zp_status status;

    if (client == NULL) return ZP_SYSTEM;
    client->worker = worker;
    client->number = number;
    client->tell = tell;
    status = zp_loop_insert(worker->loop, port, &handlers, client);
    if (status != ZP_OK) free(client);
    return status;
}

/* ---- Main ---- */

static void main_message(void *user, zp_port port, zp_message *message) {
    struct worker *worker = user;
    struct new_client new_client;
    zp_port ports[2];
    size_t index, count;
    zp_status status;

    (void)port;
    if (!get(message, tags.new_client, &new_client, sizeof new_client) || message->port_count != 2) {
        fail(worker, "main", "says something else than that there is a new client");
        return;
    }
    status = zp_message_take_ports(message, ports, 2, &count);
    if (status == ZP_OK) status = add_client(worker, new_client.client, ports[0], ports[1]);
    if (status != ZP_OK) {
        for (index = 0; index < count; index++) zp_port_close(ports[index]);
        fail(worker, "cannot take a client", zp_status_text(status));
    }
}

static void main_closed(void *user, zp_port port, zp_status reason) {
    (void)port;
    if (reason != ZP_CLOSED) fail(user, "main", zp_status_text(reason));
}

static void main_failed(void *user, zp_port port, zp_status status) {
    (void)port;
    fail(user, "cannot receive from main", zp_status_text(status));
}

int main(void) {
    const zp_handlers handlers = {sizeof handlers, main_message, main_closed, main_failed, NULL};
    struct worker worker = {{0}, 0};
    zp_port parent;
    zp_status status;

    name_types();
    status = zp_parent_port(&parent);
    if (status == ZP_OK) status = zp_loop_new(&worker.loop);
    if (status == ZP_OK) status = zp_loop_insert(worker.loop, parent, &handlers, &worker);
    if (status == ZP_OK) status = zp_loop_run(worker.loop);
    if (status != ZP_OK) fprintf(stderr, "worker: %s\n", zp_status_text(status));

    zp_loop_close(worker.loop);
    return status != ZP_OK || worker.failed;
}
