/*
 * One end of a conversation with a Rust program (`c/interop.rs`, which has the same two roles):
 *
 *      interop child|server|caller|parent  ask|answer|die|see-death  trusted|untrusted  promise  [address | program...]
 *
 * Who answers goes by what came: points are turned, numbers counted up, texts and bytes reversed, ports and buffers given
 * back. Who asks holds the answers to that, and then closes its port.
 */
#define _DEFAULT_SOURCE

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "expect.h"

enum { MOST = 65, NUMBERS = 1000, LARGE = 1 << 20, DONE = 77 };

/* "interop.Point" */
typedef struct point {
    uint64_t serial;
    int32_t x, y;
} point;

static uint32_t trust, POINT, U32, TEXT;
static int is_child;

static void look_up_tags(void) {
    POINT = zp_tag_of_plain_data("interop.Point", sizeof(point), 8);
    U32 = zp_tag_of_plain_data("u32", 4, 4);
    TEXT = zp_tag_of_name("interop.Text");
}

static char byte_at(size_t index, size_t number) { return (char)(index * 31 + number * 7 + (index >> 8)); }

static char *pattern(size_t number, size_t len) {
    char *bytes = malloc(len + 1);
    size_t index;
    HOLDS(bytes != NULL);
    for (index = 0; index < len; index++) bytes[index] = byte_at(index, number);
    return bytes;
}

static char *reversed(const char *bytes, size_t len) {
    char *back = malloc(len + 1);
    size_t index;
    HOLDS(back != NULL);
    for (index = 0; index < len; index++) back[index] = bytes[len - 1 - index];
    return back;
}

static void post(zp_port port, const void *data, size_t len, uint32_t tag) {
    zp_post it = a_post(data, len, NULL, 0);
    it.tag = tag;
    EXPECT(ZP_OK, zp_port_post_with(port, &it, NULL));
}

static void give(zp_port port, const char *text, const zp_item *items, size_t count) {
    zp_post it = a_post(text, strlen(text), items, count);
    size_t index;
    EXPECT(ZP_OK, zp_port_post_with(port, &it, &index));
    HOLDS(index == ZP_NO_INDEX);
}

static zp_message receive(zp_port port) {
    zp_message message;
    EXPECT(ZP_OK, zp_port_recv(port, &message));
    return message;
}

static void expect_bytes(zp_port port, const void *bytes, size_t len, uint32_t tag) {
    zp_message message = receive(port);
    HOLDS(message.len == len && message.tag == tag && memcmp(message.data, bytes, len) == 0);
    EXPECT(ZP_OK, zp_message_release(&message));
}

/* ---- Who answers ---- */

static void turn_points(zp_port port, const zp_message *message) {
    point points[8];
    size_t count = message->len / sizeof(point), index;
    HOLDS(message->len % sizeof(point) == 0 && count <= 8);
    memcpy(points, message->data, message->len);
    for (index = 0; index < count; index++) {
        int32_t x = points[index].x;
        points[index].serial++;
        points[index].x = points[index].y;
        points[index].y = x;
    }
    post(port, points, message->len, POINT);
}

static void count_up(zp_port port, const zp_message *message) {
    uint32_t number;
    HOLDS(message->len == 4);
    memcpy(&number, message->data, 4);
    number++;
    post(port, &number, 4, U32);
}

static void reverse_in_place(zp_port port, const zp_message *message) {
    zp_loan loan;
    char *back = reversed(message->data, message->len);
    EXPECT(ZP_OK, zp_port_reserve(port, message->len + 10, &loan));
    memcpy(loan.data, back, message->len);
    EXPECT(ZP_OK, zp_loan_publish(&loan, message->len, TEXT, NULL, 0, NULL));
    free(back);
}

static void give_ports_back(zp_port port, zp_message *message) {
    zp_port ports[MOST];
    zp_item items[MOST];
    size_t count, index;
    EXPECT(ZP_OK, zp_message_take_ports(message, ports, MOST, &count));
    for (index = 0; index < count; index++) {
        EXPECT(ZP_OK, zp_port_post(ports[index], "here", 4));
        items[index].id = ports[index].id;
    }
    give(port, "ports", items, count);
}

/* What came, and a copy of each in which every byte is one more. */
static void give_buffers_back(zp_port port, zp_message *message) {
    zp_buffer buffers[MOST], copy;
    zp_item items[2 * MOST];
    size_t count, index, len;
    void *data;
    EXPECT(ZP_OK, zp_message_take_buffers(message, buffers, MOST, &count));
    for (index = 0; index < count; index++) {
        char *bytes;
        EXPECT(ZP_SEALED, zp_buffer_write(buffers[index], &data, &len));
        EXPECT(ZP_OK, zp_buffer_copy(buffers[index], &copy));
        EXPECT(ZP_OK, zp_buffer_write(copy, &data, &len));
        for (bytes = data; bytes < (char *)data + len; bytes++) ++*bytes;
        items[index].id = buffers[index].id;
        items[count + index].id = copy.id;
    }
    give(port, "buffers", items, 2 * count);
}

static void answer(zp_port port) {
    zp_message message;
    zp_status status;
    while ((status = zp_port_recv(port, &message)) == ZP_OK) {
        if (message.tag == POINT) turn_points(port, &message);
        else if (message.tag == U32) count_up(port, &message);
        else if (message.tag == TEXT) reverse_in_place(port, &message);
        else if (message.tag != 0) post(port, "refused", 7, 0);
        else if (message.port_count > 0) give_ports_back(port, &message);
        else if (message.buffer_count > 0) give_buffers_back(port, &message);
        else {
            char *back = reversed(message.data, message.len);
            EXPECT(ZP_OK, zp_port_post(port, back, message.len));
            free(back);
        }
        EXPECT(ZP_OK, zp_message_release(&message));
    }
    EXPECT(ZP_CLOSED, status);
}

/* ---- Who asks ---- */

static void ask_plain_data(zp_port port) {
    uint32_t number, next;
    for (number = 0; number < 100; number++) {
        point points[3] = {{number, 1, -1}, {number + 1, 2, -2}, {number + 2, 3, -3}};
        point turned[3] = {{number + 1, -1, 1}, {number + 2, -2, 2}, {number + 3, -3, 3}};
        post(port, points, sizeof points[0], POINT);
        expect_bytes(port, turned, sizeof turned[0], POINT);
        post(port, points, sizeof points, POINT);
        expect_bytes(port, turned, sizeof turned, POINT);
        post(port, &number, 4, U32);
        next = number + 1;
        expect_bytes(port, &next, 4, U32);
    }
    /* Another name, another size, another alignment: another type. */
    post(port, &(point){1, 2, 3}, sizeof(point), zp_tag_of_plain_data("interop.Other", sizeof(point), 8));
    expect_bytes(port, "refused", 7, 0);
    post(port, &(point){1, 2, 3}, sizeof(point), zp_tag_of_plain_data("interop.Point", sizeof(point), 4));
    expect_bytes(port, "refused", 7, 0);
    post(port, &number, 4, zp_tag_of_name("u32"));
    expect_bytes(port, "refused", 7, 0);
}

static void ask_bytes(zp_port port) {
    zp_info info;
    size_t lens[8], index;
    EXPECT(ZP_OK, zp_port_info(port, &info));
    HOLDS(info.is_trusted == (is_child || trust == ZP_TRUST_TRUSTED)); /* a child trusts its parent */
    lens[0] = 0;
    lens[1] = 1;
    lens[2] = 64;
    lens[3] = 1000;
    lens[4] = info.max_in_ring;
    lens[5] = info.max_in_ring + 1;
    lens[6] = LARGE;
    lens[7] = 3;
    for (index = 0; index < 8; index++) {
        char *bytes = pattern(index, lens[index]), *back = reversed(bytes, lens[index]);
        EXPECT(ZP_OK, zp_port_post(port, bytes, lens[index]));
        expect_bytes(port, back, lens[index], 0);
        free(bytes);
        free(back);
    }
}

static void ask_ports(zp_port port) {
    static const size_t counts[] = {1, 2, MOST};
    size_t round, index, count;
    for (round = 0; round < 3; round++) {
        zp_port mine[MOST], theirs[MOST], ends[2];
        zp_item items[MOST];
        zp_message message;
        for (index = 0; index < counts[round]; index++) {
            EXPECT(ZP_OK, make_channel(ends, trust));
            mine[index] = ends[0];
            items[index].id = ends[1].id;
            EXPECT(ZP_OK, zp_port_post(mine[index], &index, sizeof index));
        }
        give(port, "ports", items, counts[round]);
        message = receive(port);
        HOLDS(message.port_count == counts[round] && message.buffer_count == 0);
        EXPECT(ZP_OK, zp_message_take_ports(&message, theirs, MOST, &count));
        EXPECT(ZP_OK, zp_message_release(&message));
        HOLDS(count == counts[round]);
        for (index = 0; index < count; index++) {
            expect_bytes(theirs[index], &index, sizeof index, 0);
            expect_bytes(mine[index], "here", 4, 0);
            EXPECT(ZP_OK, zp_port_post(theirs[index], "home", 4));
            expect_bytes(mine[index], "home", 4, 0);
            EXPECT(ZP_OK, zp_port_close(theirs[index]));
            EXPECT(ZP_CLOSED, zp_port_recv(mine[index], &message));
            EXPECT(ZP_OK, zp_port_close(mine[index]));
        }
    }
}

static void ask_buffers(zp_port port) {
    static const size_t lens[] = {1, 5000, LARGE};
    zp_buffer buffers[3], taken[6];
    zp_item items[3];
    zp_message message;
    size_t index, count, len, place;
    for (index = 0; index < 3; index++) {
        char *bytes = pattern(index, lens[index]);
        void *data;
        EXPECT(ZP_OK, zp_buffer_new(lens[index], &buffers[index]));
        EXPECT(ZP_OK, zp_buffer_write(buffers[index], &data, &len));
        memcpy(data, bytes, len);
        free(bytes);
        if (index == 1) EXPECT(ZP_OK, zp_buffer_seal(buffers[index]));
        items[index].id = buffers[index].id;
    }
    give(port, "buffers", items, 3);
    message = receive(port);
    HOLDS(message.buffer_count == 6 && message.port_count == 0);
    EXPECT(ZP_OK, zp_message_take_buffers(&message, taken, 6, &count));
    EXPECT(ZP_OK, zp_message_release(&message));
    for (index = 0; index < count; index++) {
        const void *data;
        EXPECT(ZP_OK, zp_buffer_read(taken[index], &data, &len));
        HOLDS(len == lens[index % 3]);
        for (place = 0; place < len; place++) {
            HOLDS(((const char *)data)[place] == (char)(byte_at(place, index % 3) + (index >= 3)));
        }
        EXPECT(ZP_OK, zp_buffer_free(taken[index]));
    }
}

static void ask_loans_and_batches(zp_port port) {
    static const size_t lens[] = {1, 100, LARGE};
    static uint32_t numbers[NUMBERS];
    static zp_post posts[NUMBERS];
    size_t index, posted;
    for (index = 0; index < 3; index++) {
        char *bytes = pattern(index, lens[index]), *back = reversed(bytes, lens[index]);
        zp_loan loan;
        EXPECT(ZP_OK, zp_port_reserve(port, lens[index] + index, &loan));
        memcpy(loan.data, bytes, lens[index]);
        EXPECT(ZP_OK, zp_loan_publish(&loan, lens[index], TEXT, NULL, 0, NULL));
        expect_bytes(port, back, lens[index], TEXT);
        free(bytes);
        free(back);
    }
    for (index = 0; index < NUMBERS; index++) {
        numbers[index] = (uint32_t)index;
        posts[index] = a_post(&numbers[index], 4, NULL, 0);
        posts[index].tag = U32;
    }
    EXPECT(ZP_OK, zp_port_post_all(port, posts, NUMBERS, &posted));
    HOLDS(posted == NUMBERS);
    for (index = 0; index < NUMBERS; index++) {
        uint32_t next = numbers[index] + 1;
        expect_bytes(port, &next, 4, U32);
    }
}

static void ask(zp_port port, const char *promise) {
    if (strcmp(promise, "plain") == 0) ask_plain_data(port);
    else if (strcmp(promise, "bytes") == 0) ask_bytes(port);
    else if (strcmp(promise, "ports") == 0) ask_ports(port);
    else if (strcmp(promise, "buffers") == 0) ask_buffers(port);
    else if (strcmp(promise, "loans") == 0) ask_loans_and_batches(port);
    else fails(promise, __FILE__, __LINE__);
}

/* ---- Deaths ---- */

/* Posts numbers until it is killed; large messages among them. */
static void post_for_ever(zp_port port) {
    static char bytes[LARGE];
    uint64_t number;
    for (number = 0;; number++) {
        memcpy(bytes, &number, sizeof number);
        EXPECT(ZP_OK, zp_port_post(port, bytes, number % 100 == 99 ? LARGE : 8 + number % 1000));
    }
}

static void expect_number(const zp_message *message, uint64_t number) {
    HOLDS(message->len == (number % 100 == 99 ? LARGE : 8 + number % 1000));
    HOLDS(memcmp(message->data, &number, sizeof number) == 0);
}

/* The other side posts for ever: kills it midway, reads the rest, and is told once. */
static void see_death(zp_port port, pid_t pid) {
    uint64_t number = 0;
    zp_message message;
    zp_set set;
    zp_event event;
    size_t count;
    int code, ends = 0;
    for (; number < 500; number++) {
        message = receive(port);
        expect_number(&message, number);
        EXPECT(ZP_OK, zp_message_release(&message));
    }
    HOLDS(kill(pid, SIGKILL) == 0);
    HOLDS(waitpid(pid, &code, 0) == pid && WIFSIGNALED(code));
    for (; number < 600 && zp_port_recv(port, &message) == ZP_OK; number++) {
        expect_number(&message, number);
        EXPECT(ZP_OK, zp_message_release(&message));
    }
    EXPECT(ZP_OK, zp_set_new(&set));
    EXPECT(ZP_OK, zp_set_insert(set, port, &number));
    while (ends == 0) {
        EXPECT(ZP_OK, zp_set_wait(set, &event, 1, &count));
        HOLDS(count == 1 && event.user == &number);
        if (event.kind == ZP_EVENT_CLOSED) {
            EXPECT(ZP_PEER_DIED, event.status);
            ends++;
        } else {
            HOLDS(event.kind == ZP_EVENT_MESSAGE);
            expect_number(&event.message, number++);
            EXPECT(ZP_OK, zp_message_release(&event.message));
        }
    }
    EXPECT(ZP_EMPTY, zp_set_try_wait(set, &event, 1, &count));
    EXPECT(ZP_FREED, zp_port_post(port, "x", 1));
    EXPECT(ZP_OK, zp_set_close(set));
}

/* ---- The ways to a port ---- */

static zp_port accept_one(const char *address, const zp_channel_options *options) {
    zp_server server;
    zp_caller caller;
    zp_port port;
    EXPECT(ZP_OK, zp_server_bind(address, &server));
    puts("listening");
    fflush(stdout);
    EXPECT(ZP_OK, zp_server_accept(server, &caller, NULL));
    EXPECT(ZP_OK, zp_caller_admit(caller, options, &port));
    EXPECT(ZP_OK, zp_server_close(server));
    return port;
}

int main(int argc, char **argv) {
    zp_channel_options options = ZP_CHANNEL_OPTIONS_INIT;
    zp_port port;
    pid_t pid = 0;
    int code;
    HOLDS(argc > 4);
    alarm(55); /* whoever is stuck ends before the test that waits for it */
    look_up_tags();
    trust = options.trust = strcmp(argv[3], "trusted") == 0 ? ZP_TRUST_TRUSTED : ZP_TRUST_UNTRUSTED;
    is_child = strcmp(argv[1], "child") == 0;
    if (is_child) EXPECT(ZP_OK, zp_parent_port(&port));
    else if (strcmp(argv[1], "parent") == 0) EXPECT(ZP_OK, zp_spawn(argv + 5, NULL, &options, &port, &pid));
    else if (strcmp(argv[1], "server") == 0) port = accept_one(argv[5], &options);
    else EXPECT(ZP_OK, zp_connect(argv[5], &options, &port, NULL));
    if (strcmp(argv[2], "die") == 0) post_for_ever(port);
    if (strcmp(argv[2], "see-death") == 0) {
        see_death(port, pid);
        return DONE;
    }
    if (strcmp(argv[2], "ask") == 0) ask(port, argv[4]);
    else answer(port);
    EXPECT(ZP_OK, zp_port_close(port));
    if (pid != 0) HOLDS(waitpid(pid, &code, 0) == pid && WIFEXITED(code) && WEXITSTATUS(code) == DONE);
    return DONE;
}
