/*
 * Every function of the header, a row or more each: how it is called with a handle that the test chooses and with one
 * pointer that is not as it should be. `handles.c` and `inside.c` go through all rows; a function of the header without
 * a row fails the test that compares the list (`tests/c.rs`).
 */
#ifndef ROWS_H
#define ROWS_H

#include "expect.h"

/* What a row's handle is the name of. A message and a loan are named by two numbers. */
enum kind { NO_KIND, PORT, BUFFER, SERVER, CALLER, SET, LOOP, MESSAGE, LOAN, KINDS };

/* The handle that is tried. */
typedef struct tried {
    uint64_t id;
    uint64_t number; /* of a message or loan */
} tried;

/* What is written by calls that fail, too: zeros, and -1 for descriptors. Before each call all is SPOILT. */
enum { SPOILT = 0xa5 };
enum outputs {
    OUT_PORTS = 1,
    OUT_HANDLE = 2, /* a port, buffer, set or whatever */
    OUT_MESSAGE = 4,
    OUT_LOAN = 8,
    OUT_INFO = 16,
    OUT_CREDENTIALS = 32,
    OUT_DATA = 64,
    OUT_LEN = 128,
    OUT_INDEX = 256, /* ZP_NO_INDEX, or what is to blame */
    OUT_FD = 512,
    OUT_PID = 1024,
    OUT_TICKET = 2048,
    OUT_NAMED = 4096
};
static struct outs {
    zp_port ports[2];
    uint64_t handle;
    zp_message message;
    zp_loan loan;
    zp_info info;
    zp_credentials credentials;
    void *data;
    size_t len;
    size_t index;
    int fd;
    pid_t pid;
    uint8_t ticket[ZP_TICKET_LEN];
    zp_named named;
    /* Places that are counted: nothing is written there. */
    zp_message messages[2];
    zp_event events[2];
    zp_port taken[2];
    zp_buffer taken_buffers[2];
    int fds[ZP_MAX_DESCRIPTORS];
} outs;

/* The pointer that is not as it should be: its number in the row, or none; and how. */
enum { NO_POINTER = -1 };
static int bad_pointer = NO_POINTER;
static int is_odd; /* misaligned, else null */

/* The pointer with this number in its row. */
static inline void *p(int number, const void *pointer) {
    if (number != bad_pointer) return (void *)(uintptr_t)pointer;
    return is_odd ? (void *)((uintptr_t)pointer + 1) : NULL;
}

/* What live there is beside the handle that is tried. */
static struct living {
    zp_port port, far;       /* a channel */
    zp_port other, other_far; /* another one */
    zp_port member;          /* in the set or the loop */
    zp_port halves[2], far_of_halves;
    zp_set set;
    zp_loop loop;
} living;

static inline void open_pair(zp_port *one, zp_port *other) {
    zp_port ends[2];
    EXPECT(ZP_OK, zp_channel_new(ends, NULL));
    *one = ends[0];
    *other = ends[1];
}

/* A port in halves, and its other end. */
static inline void split_one(void) {
    zp_port whole;
    open_pair(&whole, &living.far_of_halves);
    EXPECT(ZP_OK, zp_port_split(whole, living.halves));
}

static const zp_handlers NO_HANDLERS = {sizeof(zp_handlers), NULL, NULL, NULL, NULL};

static inline zp_port as_port(tried it) { zp_port port; port.id = it.id; return port; }
static inline zp_buffer as_buffer(tried it) { zp_buffer buffer; buffer.id = it.id; return buffer; }
static inline zp_server as_server(tried it) { zp_server server; server.id = it.id; return server; }
static inline zp_caller as_caller(tried it) { zp_caller caller; caller.id = it.id; return caller; }
static inline zp_set as_set(tried it) { zp_set set; set.id = it.id; return set; }
static inline zp_loop as_loop(tried it) { zp_loop loop; loop.id = it.id; return loop; }

static zp_message given_message;
static inline zp_message *as_message(tried it) {
    memset(&given_message, 0, sizeof given_message);
    given_message.opaque[0] = it.id;
    given_message.opaque[1] = it.number;
    return &given_message;
}

static zp_loan given_loan;
static inline zp_loan *as_loan(tried it) {
    memset(&given_loan, 0, sizeof given_loan);
    given_loan.opaque[0] = it.id;
    given_loan.opaque[1] = it.number;
    return &given_loan;
}

/* A message with the handle in its list. */
static zp_item listed[1];
static inline zp_post *with_item(tried it) {
    static zp_post post;
    listed[0].id = it.id;
    post = a_post("item", 4, listed, 1);
    return &post;
}

static inline zp_post *without_item(void) {
    static zp_post post;
    post = a_post("post", 4, NULL, 0);
    return &post;
}

static inline zp_channel_options *usual(void) {
    static zp_channel_options options = ZP_CHANNEL_OPTIONS_INIT;
    return &options;
}

static char *const NO_SUCH[] = {(char *)(uintptr_t)"/nonexistent/program", NULL};
static const char NOBODY[] = "@zeroport-nobody-is-there";
static const uint8_t NO_TICKET[ZP_TICKET_LEN];

/* X(row, function, kind, pointers that are needed, pointers that are aligned, outputs, call) */
#define NEEDS(number) (1u << (number))
#define HELD_ROWS(X)                                                                                                   \
    X(port_post, zp_port_post, PORT, NEEDS(0), 0, 0, zp_port_post(as_port(it), p(0, "x"), 1))                           \
    X(port_try_post, zp_port_try_post, PORT, NEEDS(0), 0, 0, zp_port_try_post(as_port(it), p(0, "x"), 1))               \
    X(port_post_timeout, zp_port_post_timeout, PORT, NEEDS(0), 0, 0, zp_port_post_timeout(as_port(it), p(0, "x"), 1, 1)) \
    X(port_post_with, zp_port_post_with, PORT, NEEDS(0), 3, OUT_INDEX,                                                  \
      zp_port_post_with(as_port(it), p(0, without_item()), p(1, &outs.index)))                                         \
    X(port_try_post_with, zp_port_try_post_with, PORT, NEEDS(0), 3, OUT_INDEX,                                          \
      zp_port_try_post_with(as_port(it), p(0, without_item()), p(1, &outs.index)))                                     \
    X(port_post_with_timeout, zp_port_post_with_timeout, PORT, NEEDS(0), 3, OUT_INDEX,                                  \
      zp_port_post_with_timeout(as_port(it), p(0, without_item()), p(1, &outs.index), 1))                              \
    X(port_post_all, zp_port_post_all, PORT, NEEDS(0), 3, OUT_LEN,                                                      \
      zp_port_post_all(as_port(it), p(0, without_item()), 1, p(1, &outs.len)))                                         \
    X(port_try_post_all, zp_port_try_post_all, PORT, NEEDS(0), 3, OUT_LEN,                                              \
      zp_port_try_post_all(as_port(it), p(0, without_item()), 1, p(1, &outs.len)))                                     \
    X(port_post_all_timeout, zp_port_post_all_timeout, PORT, NEEDS(0), 3, OUT_LEN,                                     \
      zp_port_post_all_timeout(as_port(it), p(0, without_item()), 1, p(1, &outs.len), 1))                              \
    X(port_reserve, zp_port_reserve, PORT, NEEDS(0), 1, OUT_LOAN, zp_port_reserve(as_port(it), 1, p(0, &outs.loan)))     \
    X(port_try_reserve, zp_port_try_reserve, PORT, NEEDS(0), 1, OUT_LOAN,                                               \
      zp_port_try_reserve(as_port(it), 1, p(0, &outs.loan)))                                                           \
    X(port_reserve_timeout, zp_port_reserve_timeout, PORT, NEEDS(0), 1, OUT_LOAN,                                       \
      zp_port_reserve_timeout(as_port(it), 1, p(0, &outs.loan), 1))                                                    \
    X(loan_publish, zp_loan_publish, LOAN, NEEDS(0), 3, OUT_INDEX,                                                      \
      zp_loan_publish(p(0, as_loan(it)), 0, 0, NULL, 0, p(1, &outs.index)))                                            \
    X(loan_cancel, zp_loan_cancel, LOAN, NEEDS(0), 1, 0, zp_loan_cancel(p(0, as_loan(it))))                              \
    X(port_max_payload, zp_port_max_payload, PORT, NEEDS(0), 1, OUT_LEN,                                                \
      zp_port_max_payload(as_port(it), p(0, &outs.len)))                                                               \
    X(buffer_copy, zp_buffer_copy, BUFFER, NEEDS(0), 1, OUT_HANDLE,                                                     \
      zp_buffer_copy(as_buffer(it), p(0, &outs.handle)))                                                               \
    X(buffer_write, zp_buffer_write, BUFFER, NEEDS(0) | NEEDS(1), 3, OUT_DATA | OUT_LEN,                                \
      zp_buffer_write(as_buffer(it), p(0, &outs.data), p(1, &outs.len)))                                               \
    X(buffer_read, zp_buffer_read, BUFFER, NEEDS(0) | NEEDS(1), 3, OUT_DATA | OUT_LEN,                                  \
      zp_buffer_read(as_buffer(it), p(0, &outs.data), p(1, &outs.len)))                                                \
    X(buffer_seal, zp_buffer_seal, BUFFER, 0, 0, 0, zp_buffer_seal(as_buffer(it)))                                      \
    X(buffer_free, zp_buffer_free, BUFFER, 0, 0, 0, zp_buffer_free(as_buffer(it)))                                      \
    X(port_recv, zp_port_recv, PORT, NEEDS(0), 1, OUT_MESSAGE, zp_port_recv(as_port(it), p(0, &outs.message)))           \
    X(port_try_recv, zp_port_try_recv, PORT, NEEDS(0), 1, OUT_MESSAGE,                                                  \
      zp_port_try_recv(as_port(it), p(0, &outs.message)))                                                              \
    X(port_recv_timeout, zp_port_recv_timeout, PORT, NEEDS(0), 1, OUT_MESSAGE,                                          \
      zp_port_recv_timeout(as_port(it), p(0, &outs.message), 1))                                                       \
    X(port_recv_all, zp_port_recv_all, PORT, NEEDS(0) | NEEDS(1), 3, OUT_LEN,                                           \
      zp_port_recv_all(as_port(it), p(0, outs.messages), 2, p(1, &outs.len)))                                          \
    X(port_try_recv_all, zp_port_try_recv_all, PORT, NEEDS(0) | NEEDS(1), 3, OUT_LEN,                                   \
      zp_port_try_recv_all(as_port(it), p(0, outs.messages), 2, p(1, &outs.len)))                                      \
    X(port_recv_all_timeout, zp_port_recv_all_timeout, PORT, NEEDS(0) | NEEDS(1), 3, OUT_LEN,                           \
      zp_port_recv_all_timeout(as_port(it), p(0, outs.messages), 2, p(1, &outs.len), 1))                               \
    X(message_take_ports, zp_message_take_ports, MESSAGE, NEEDS(0) | NEEDS(1) | NEEDS(2), 7, OUT_LEN,                    \
      zp_message_take_ports(p(0, as_message(it)), p(1, outs.taken), 2, p(2, &outs.len)))                               \
    X(message_take_buffers, zp_message_take_buffers, MESSAGE, NEEDS(0) | NEEDS(1) | NEEDS(2), 7, OUT_LEN,                \
      zp_message_take_buffers(p(0, as_message(it)), p(1, outs.taken_buffers), 2, p(2, &outs.len)))                     \
    X(message_release, zp_message_release, MESSAGE, NEEDS(0), 1, 0, zp_message_release(p(0, as_message(it))))            \
    X(messages_release, zp_messages_release, MESSAGE, NEEDS(0), 1, 0, zp_messages_release(p(0, as_message(it)), 1))      \
    X(port_post_named, zp_port_post_named, PORT, NEEDS(0) | NEEDS(1), 6, OUT_INDEX,                                    \
      zp_port_post_named(as_port(it), p(0, "name"), p(1, without_item()), p(2, &outs.index)))                          \
    X(port_try_post_named, zp_port_try_post_named, PORT, NEEDS(0) | NEEDS(1), 6, OUT_INDEX,                            \
      zp_port_try_post_named(as_port(it), p(0, "name"), p(1, without_item()), p(2, &outs.index)))                      \
    X(port_post_named_timeout, zp_port_post_named_timeout, PORT, NEEDS(0) | NEEDS(1), 6, OUT_INDEX,                    \
      zp_port_post_named_timeout(as_port(it), p(0, "name"), p(1, without_item()), p(2, &outs.index), 1))               \
    X(port_invoke, zp_port_invoke, PORT, NEEDS(0) | NEEDS(1) | NEEDS(3), 14, OUT_INDEX | OUT_HANDLE,                   \
      zp_port_invoke(as_port(it), p(0, "name"), p(1, without_item()), p(2, &outs.index), p(3, &outs.handle)))          \
    X(port_try_invoke, zp_port_try_invoke, PORT, NEEDS(0) | NEEDS(1) | NEEDS(3), 14, OUT_INDEX | OUT_HANDLE,           \
      zp_port_try_invoke(as_port(it), p(0, "name"), p(1, without_item()), p(2, &outs.index), p(3, &outs.handle)))      \
    X(port_invoke_timeout, zp_port_invoke_timeout, PORT, NEEDS(0) | NEEDS(1) | NEEDS(3), 14, OUT_INDEX | OUT_HANDLE,   \
      zp_port_invoke_timeout(as_port(it), p(0, "name"), p(1, without_item()), p(2, &outs.index), p(3, &outs.handle), 1))\
    X(message_open, zp_message_open, MESSAGE, NEEDS(0) | NEEDS(1), 3, OUT_NAMED,                                       \
      zp_message_open(p(0, as_message(it)), p(1, &outs.named)))                                                        \
    X(port_split, zp_port_split, PORT, NEEDS(0), 1, OUT_PORTS, zp_port_split(as_port(it), p(0, outs.ports)))           \
    X(port_join, zp_port_join, PORT, NEEDS(0), 1, OUT_HANDLE,                                                          \
      zp_port_join(as_port(it), living.halves[1], p(0, &outs.handle)))                                                 \
    X(port_join_of, zp_port_join, PORT, NEEDS(0), 1, OUT_HANDLE,                                                       \
      zp_port_join(living.halves[0], as_port(it), p(0, &outs.handle)))                                                 \
    X(port_fd, zp_port_fd, PORT, NEEDS(0), 1, OUT_FD, zp_port_fd(as_port(it), p(0, &outs.fd)))                           \
    X(port_arm, zp_port_arm, PORT, 0, 0, 0, zp_port_arm(as_port(it)))                                                   \
    X(port_disarm, zp_port_disarm, PORT, 0, 0, 0, zp_port_disarm(as_port(it)))                                          \
    X(port_peer_state, zp_port_peer_state, PORT, 0, 0, 0, zp_port_peer_state(as_port(it)))                              \
    X(port_info, zp_port_info, PORT, NEEDS(0), 1, OUT_INFO, zp_port_info(as_port(it), p(0, &outs.info)))                 \
    X(port_set_wait, zp_port_set_wait, PORT, 0, 0, 0, zp_port_set_wait(as_port(it), ZP_WAIT_SLEEP))                     \
    X(server_fd, zp_server_fd, SERVER, NEEDS(0), 1, OUT_FD, zp_server_fd(as_server(it), p(0, &outs.fd)))                 \
    X(server_accept, zp_server_accept, SERVER, NEEDS(0), 3, OUT_HANDLE | OUT_CREDENTIALS,                               \
      zp_server_accept(as_server(it), p(0, &outs.handle), p(1, &outs.credentials)))                                    \
    X(server_try_accept, zp_server_try_accept, SERVER, NEEDS(0), 3, OUT_HANDLE | OUT_CREDENTIALS,                       \
      zp_server_try_accept(as_server(it), p(0, &outs.handle), p(1, &outs.credentials)))                                \
    X(server_accept_timeout, zp_server_accept_timeout, SERVER, NEEDS(0), 3, OUT_HANDLE | OUT_CREDENTIALS,               \
      zp_server_accept_timeout(as_server(it), p(0, &outs.handle), p(1, &outs.credentials), 1))                         \
    X(caller_admit, zp_caller_admit, CALLER, NEEDS(1), 3, OUT_HANDLE,                                                   \
      zp_caller_admit(as_caller(it), p(0, usual()), p(1, &outs.handle)))                                               \
    X(set_insert, zp_set_insert, SET, 0, 0, 0, zp_set_insert(as_set(it), living.other, NULL))                           \
    X(set_insert_of, zp_set_insert, PORT, 0, 0, 0, zp_set_insert(living.set, as_port(it), NULL))                        \
    X(set_remove, zp_set_remove, SET, 0, 0, 0, zp_set_remove(as_set(it), living.member))                                \
    X(set_remove_of, zp_set_remove, PORT, 0, 0, 0, zp_set_remove(living.set, as_port(it)))                              \
    X(set_pause, zp_set_pause, SET, 0, 0, 0, zp_set_pause(as_set(it), living.member))                                   \
    X(set_pause_of, zp_set_pause, PORT, 0, 0, 0, zp_set_pause(living.set, as_port(it)))                                 \
    X(set_resume, zp_set_resume, SET, 0, 0, 0, zp_set_resume(as_set(it), living.member))                                \
    X(set_resume_of, zp_set_resume, PORT, 0, 0, 0, zp_set_resume(living.set, as_port(it)))                              \
    X(set_wait, zp_set_wait, SET, NEEDS(0) | NEEDS(1), 3, OUT_LEN,                                                      \
      zp_set_wait(as_set(it), p(0, outs.events), 2, p(1, &outs.len)))                                                  \
    X(set_try_wait, zp_set_try_wait, SET, NEEDS(0) | NEEDS(1), 3, OUT_LEN,                                              \
      zp_set_try_wait(as_set(it), p(0, outs.events), 2, p(1, &outs.len)))                                              \
    X(set_wait_timeout, zp_set_wait_timeout, SET, NEEDS(0) | NEEDS(1), 3, OUT_LEN,                                      \
      zp_set_wait_timeout(as_set(it), p(0, outs.events), 2, p(1, &outs.len), 1))                                       \
    X(set_wake, zp_set_wake, SET, 0, 0, 0, zp_set_wake(as_set(it)))                                                     \
    X(set_fd, zp_set_fd, SET, NEEDS(0), 1, OUT_FD, zp_set_fd(as_set(it), p(0, &outs.fd)))                                \
    X(set_arm, zp_set_arm, SET, 0, 0, 0, zp_set_arm(as_set(it)))                                                        \
    X(set_set_wait, zp_set_set_wait, SET, 0, 0, 0, zp_set_set_wait(as_set(it), ZP_WAIT_SLEEP))                          \
    X(loop_insert, zp_loop_insert, LOOP, NEEDS(0), 1, 0,                                                                \
      zp_loop_insert(as_loop(it), living.other, p(0, &NO_HANDLERS), NULL))                                             \
    X(loop_insert_of, zp_loop_insert, PORT, NEEDS(0), 1, 0,                                                             \
      zp_loop_insert(living.loop, as_port(it), p(0, &NO_HANDLERS), NULL))                                              \
    X(loop_remove, zp_loop_remove, LOOP, 0, 0, 0, zp_loop_remove(as_loop(it), living.member))                           \
    X(loop_remove_of, zp_loop_remove, PORT, 0, 0, 0, zp_loop_remove(living.loop, as_port(it)))                          \
    X(loop_pause, zp_loop_pause, LOOP, 0, 0, 0, zp_loop_pause(as_loop(it), living.member))                              \
    X(loop_pause_of, zp_loop_pause, PORT, 0, 0, 0, zp_loop_pause(living.loop, as_port(it)))                             \
    X(loop_resume, zp_loop_resume, LOOP, 0, 0, 0, zp_loop_resume(as_loop(it), living.member))                           \
    X(loop_resume_of, zp_loop_resume, PORT, 0, 0, 0, zp_loop_resume(living.loop, as_port(it)))                          \
    X(loop_run, zp_loop_run, LOOP, 0, 0, 0, zp_loop_run(as_loop(it)))                                                   \
    X(loop_run_timeout, zp_loop_run_timeout, LOOP, 0, 0, 0, zp_loop_run_timeout(as_loop(it), 1))                              \
    X(loop_run_once, zp_loop_run_once, LOOP, 0, 0, 0, zp_loop_run_once(as_loop(it)))                                    \
    X(loop_run_ready, zp_loop_run_ready, LOOP, 0, 0, 0, zp_loop_run_ready(as_loop(it)))                                 \
    X(loop_wake, zp_loop_wake, LOOP, 0, 0, 0, zp_loop_wake(as_loop(it)))                                                \
    X(loop_fd, zp_loop_fd, LOOP, NEEDS(0), 1, OUT_FD, zp_loop_fd(as_loop(it), p(0, &outs.fd)))                           \
    X(loop_arm, zp_loop_arm, LOOP, 0, 0, 0, zp_loop_arm(as_loop(it)))                                                   \
    X(loop_set_wait, zp_loop_set_wait, LOOP, 0, 0, 0, zp_loop_set_wait(as_loop(it), ZP_WAIT_SLEEP))                     \
    X(loop_stop, zp_loop_stop, LOOP, 0, 0, 0, zp_loop_stop(as_loop(it)))                                                \
    X(port_detach, zp_port_detach, PORT, NEEDS(0) | NEEDS(1) | NEEDS(2), 6, OUT_TICKET | OUT_LEN,                       \
      zp_port_detach(as_port(it), ZP_TRUST_TRUSTED, p(0, outs.ticket), p(1, outs.fds), ZP_MAX_DESCRIPTORS,              \
                     p(2, &outs.len)))                                                                                 \
    X(port_shutdown, zp_port_shutdown, PORT, 0, 0, 0, zp_port_shutdown(as_port(it)))                                    \
    X(port_close, zp_port_close, PORT, 0, 0, 0, zp_port_close(as_port(it)))                                             \
    X(caller_refuse, zp_caller_refuse, CALLER, 0, 0, 0, zp_caller_refuse(as_caller(it)))                                \
    X(server_close, zp_server_close, SERVER, 0, 0, 0, zp_server_close(as_server(it)))                                   \
    X(set_close, zp_set_close, SET, 0, 0, 0, zp_set_close(as_set(it)))                                                  \
    X(loop_close, zp_loop_close, LOOP, 0, 0, 0, zp_loop_close(as_loop(it)))

/* The handle stands in the list of a message. */
#define ITEM_ROWS(X)                                                                                                   \
    X(post_item, zp_port_post_with, PORT, 0, 0, OUT_INDEX, zp_port_post_with(living.port, with_item(it), &outs.index))   \
    X(try_post_item, zp_port_try_post_with, PORT, 0, 0, OUT_INDEX,                                                      \
      zp_port_try_post_with(living.port, with_item(it), &outs.index))                                                  \
    X(post_item_timeout, zp_port_post_with_timeout, PORT, 0, 0, OUT_INDEX,                                              \
      zp_port_post_with_timeout(living.port, with_item(it), &outs.index, 1))                                           \
    X(post_named_item, zp_port_post_named, PORT, 0, 0, OUT_INDEX,                                                      \
      zp_port_post_named(living.port, "name", with_item(it), &outs.index))                                             \
    X(invoke_item, zp_port_invoke, PORT, 0, 0, OUT_INDEX | OUT_HANDLE,                                                 \
      zp_port_invoke(living.port, "name", with_item(it), &outs.index, (zp_port *)&outs.handle))

/* There is no handle to try. */
#define FREE_ROWS(X)                                                                                                   \
    X(channel_new, zp_channel_new, NO_KIND, NEEDS(0), 3, OUT_PORTS, zp_channel_new(p(0, outs.ports), p(1, usual())))     \
    X(parent_port, zp_parent_port, NO_KIND, NEEDS(0), 1, OUT_HANDLE, zp_parent_port(p(0, &outs.handle)))                 \
    X(spawn, zp_spawn, NO_KIND, NEEDS(0) | NEEDS(3) | NEEDS(4), 31, OUT_HANDLE | OUT_PID,                                \
      zp_spawn(p(0, NO_SUCH), p(1, NO_SUCH + 1), p(2, usual()), p(3, &outs.handle), p(4, &outs.pid)))                   \
    X(buffer_new, zp_buffer_new, NO_KIND, NEEDS(0), 1, OUT_HANDLE, zp_buffer_new(1, p(0, &outs.handle)))                 \
    X(port_attach, zp_port_attach, NO_KIND, NEEDS(0) | NEEDS(1) | NEEDS(2), 6, OUT_HANDLE,                               \
      zp_port_attach(p(0, NO_TICKET), p(1, outs.fds), 1, ZP_TRUST_TRUSTED, p(2, &outs.handle)))                         \
    X(server_bind, zp_server_bind, NO_KIND, NEEDS(0) | NEEDS(1), 2, OUT_HANDLE,                                         \
      zp_server_bind(p(0, NOBODY), p(1, &outs.handle)))                                                                \
    X(connect, zp_connect, NO_KIND, NEEDS(0) | NEEDS(2), 14, OUT_HANDLE | OUT_CREDENTIALS,                              \
      zp_connect(p(0, NOBODY), p(1, usual()), p(2, &outs.handle), p(3, &outs.credentials)))                            \
    X(connect_timeout, zp_connect_timeout, NO_KIND, NEEDS(0) | NEEDS(2), 14, OUT_HANDLE | OUT_CREDENTIALS,              \
      zp_connect_timeout(p(0, NOBODY), p(1, usual()), p(2, &outs.handle), p(3, &outs.credentials), 1))                 \
    X(set_new, zp_set_new, NO_KIND, NEEDS(0), 1, OUT_HANDLE, zp_set_new(p(0, &outs.handle)))                             \
    X(loop_new, zp_loop_new, NO_KIND, NEEDS(0), 1, OUT_HANDLE, zp_loop_new(p(0, &outs.handle)))                          \
    X(tag_of_plain_data, zp_tag_of_plain_data, NO_KIND, NEEDS(0), 0, 0,                                                \
      zp_tag_of_plain_data(p(0, "u32"), 4, 4) == 0 ? ZP_BAD_ARGUMENT : ZP_OK)                                          \
    X(tag_of_name, zp_tag_of_name, NO_KIND, NEEDS(0), 0, 0,                                                            \
      zp_tag_of_name(p(0, "u32")) == 0 ? ZP_BAD_ARGUMENT : ZP_OK)                                                      \
    X(version, zp_version, NO_KIND, 0, 0, 0, zp_version() == ZP_VERSION ? ZP_OK : ZP_INTERNAL)                          \
    X(status_text, zp_status_text, NO_KIND, 0, 0, 0, zp_status_text(ZP_OK) != NULL ? ZP_OK : ZP_INTERNAL)

#define AS_FUNCTION(row, function, kind, needed, aligned, outputs, call)                                               \
    static zp_status call_##row(tried it) {                                                                            \
        (void)it;                                                                                                      \
        return call;                                                                                                   \
    }
HELD_ROWS(AS_FUNCTION)
ITEM_ROWS(AS_FUNCTION)
FREE_ROWS(AS_FUNCTION)
#undef AS_FUNCTION

typedef struct row {
    const char *name, *function;
    enum kind kind;
    unsigned needed, aligned; /* pointers, a bit each */
    unsigned outputs;         /* what is filled */
    zp_status (*call)(tried it);
} row;

#define AS_ROW(row, function, kind, needed, aligned, outputs, call)                                                    \
    {#row, #function, kind, needed, aligned, outputs, call_##row},
static const row HELD[] = {HELD_ROWS(AS_ROW)};
static const row ITEMS[] = {ITEM_ROWS(AS_ROW)};
static const row FREE[] = {FREE_ROWS(AS_ROW)};
#undef AS_ROW

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))
#define MOST_POINTERS 5

#endif
