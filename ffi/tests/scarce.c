/*
 * A process that runs out of descriptors: what a call says, that nothing is lost or leaked by it, and that it succeeds
 * when there are some again. Not for valgrind, which keeps limits of its own.
 */
#define _DEFAULT_SOURCE

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "expect.h"

enum { LARGE = 1 << 20, MOST_LEFT = 12 };

static char large[LARGE];
static struct rlimit usual;
static zp_port one, other;

/* Its large messages have memory of their own each time, which is what takes a descriptor. */
static void open_pair(uint32_t trust) {
    zp_channel_options options = ZP_CHANNEL_OPTIONS_INIT;
    zp_port ends[2];
    options.trust = trust;
    options.cold = 1;
    EXPECT(ZP_OK, zp_channel_new(ends, &options));
    one = ends[0];
    other = ends[1];
}

static void close_pair(void) {
    EXPECT(ZP_OK, zp_port_close(one));
    EXPECT(ZP_OK, zp_port_close(other));
}

static void as_usual(void) { HOLDS(setrlimit(RLIMIT_NOFILE, &usual) == 0); }

/* So many descriptors can still be had. */
static void leave(int count) {
    struct rlimit few = usual;
    int number = 0;
    while (fcntl(number, F_GETFD) >= 0 || count-- > 0) number++;
    few.rlim_cur = (rlim_t)number;
    HOLDS(setrlimit(RLIMIT_NOFILE, &few) == 0);
}

static int descriptors(void) {
    int count = 0;
    DIR *folder = opendir("/proc/self/fd");
    HOLDS(folder != NULL);
    while (readdir(folder) != NULL) count++;
    HOLDS(closedir(folder) == 0);
    return count;
}

static void works(zp_port from, zp_port to) {
    zp_message message;
    EXPECT(ZP_OK, zp_port_post(from, "works", 5));
    EXPECT(ZP_OK, zp_port_try_recv(to, &message));
    HOLDS(message.len == 5 && memcmp(message.data, "works", 5) == 0);
    EXPECT(ZP_OK, zp_message_release(&message));
}

static void is_large(zp_message *message) {
    HOLDS(message->len == LARGE && ((const char *)message->data)[LARGE - 1] == 'L');
    EXPECT(ZP_OK, zp_message_release(message));
}

/* A large message has memory of its own, and that a descriptor. */
static void receives(uint32_t trust) {
    zp_message message, three[3];
    size_t count;
    int round;
    open_pair(trust);
    EXPECT(ZP_OK, zp_port_post(one, "small", 5));
    EXPECT(ZP_OK, zp_port_post(one, large, LARGE));
    leave(0);
    EXPECT(ZP_OK, zp_port_recv_all(other, three, 3, &count));
    HOLDS(count == 1 && three[0].len == 5);
    for (round = 0; round < 3; round++) {
        errno = 0;
        EXPECT(ZP_SYSTEM, zp_port_try_recv(other, &message));
        HOLDS(errno == EMFILE && message.data == NULL && message.len == 0 && message.opaque[0] == 0);
        errno = 0;
        EXPECT(ZP_SYSTEM, zp_port_try_recv_all(other, three + 1, 2, &count));
        HOLDS(errno == EMFILE && count == 0);
    }
    as_usual();
    EXPECT(ZP_OK, zp_port_recv(other, &message));
    is_large(&message);
    EXPECT(ZP_OK, zp_message_release(&three[0]));
    works(one, other);
    close_pair();
}

/* A set tells it at every wait, and ends the wait by it; other members are told meanwhile. */
static void sets(void) {
    zp_port second[2];
    zp_set set;
    zp_event events[4];
    size_t count, index;
    int user, round;
    open_pair(ZP_TRUST_USUAL);
    EXPECT(ZP_OK, make_channel(second, ZP_TRUST_USUAL));
    EXPECT(ZP_OK, zp_set_new(&set));
    EXPECT(ZP_OK, zp_set_insert(set, other, &user));
    EXPECT(ZP_OK, zp_set_insert(set, second[1], NULL));
    EXPECT(ZP_OK, zp_port_post(one, large, LARGE));
    leave(0);
    for (round = 0; round < 3; round++) {
        int failed = 0, told = 0;
        EXPECT(ZP_OK, zp_port_post(second[0], "x", 1));
        while (!failed || !told) {
            errno = 0;
            EXPECT(ZP_OK, zp_set_wait(set, events, 4, &count));
            HOLDS(count > 0);
            for (index = 0; index < count; index++) {
                if (events[index].kind == ZP_EVENT_FAILED) {
                    HOLDS(errno == EMFILE && events[index].status == ZP_SYSTEM);
                    HOLDS(events[index].user == &user && events[index].port.id == other.id);
                    HOLDS(events[index].message.data == NULL && events[index].message.opaque[0] == 0);
                    failed = 1;
                } else {
                    HOLDS(events[index].kind == ZP_EVENT_MESSAGE && events[index].port.id == second[1].id);
                    EXPECT(ZP_OK, zp_message_release(&events[index].message));
                    told = 1;
                }
            }
        }
    }
    EXPECT(ZP_OK, zp_set_pause(set, other));
    EXPECT(ZP_EMPTY, zp_set_try_wait(set, events, 4, &count));
    EXPECT(ZP_OK, zp_set_resume(set, other));
    EXPECT(ZP_OK, zp_set_try_wait(set, events, 4, &count));
    HOLDS(count == 1 && events[0].kind == ZP_EVENT_FAILED);
    EXPECT(ZP_OK, zp_set_remove(set, other));
    EXPECT(ZP_EMPTY, zp_set_try_wait(set, events, 4, &count));
    EXPECT(ZP_OK, zp_set_insert(set, other, &user));
    as_usual();
    EXPECT(ZP_OK, zp_set_wait(set, events, 4, &count));
    HOLDS(count == 1 && events[0].kind == ZP_EVENT_MESSAGE && events[0].user == &user);
    is_large(&events[0].message);
    EXPECT(ZP_OK, zp_set_close(set));
    EXPECT(ZP_OK, zp_port_close(one));
    EXPECT(ZP_OK, zp_port_close(second[0]));
}

static int messages, errors, removes;
static zp_loop loop;
static void (*then)(void);

static void on_message(void *user, zp_port port, zp_message *message) {
    HOLDS(user == &messages && port.id == other.id && removes == 0);
    is_large(message);
    messages++;
}

static void on_error(void *user, zp_port port, zp_status status) {
    HOLDS(errno == EMFILE && status == ZP_SYSTEM);
    HOLDS(user == &messages && port.id == other.id && removes == 0);
    errors++;
    then();
}

static void removed(void *user) {
    HOLDS(user == &messages);
    removes++;
}

static void nothing(void) {}
static void remove_it(void) { EXPECT(ZP_OK, zp_loop_remove(loop, other)); }
static void close_it(void) { EXPECT(ZP_OK, zp_port_close(other)); }

/* A loop tells it once, tries again, and tells it anew after a message. */
static void loops(void) {
    static const zp_handlers handlers = {sizeof handlers, on_message, NULL, on_error, removed};
    int round;
    open_pair(ZP_TRUST_USUAL);
    EXPECT(ZP_OK, zp_loop_new(&loop));
    EXPECT(ZP_OK, zp_loop_insert(loop, other, &handlers, &messages));
    for (round = 1; round <= 2; round++) {
        then = nothing;
        EXPECT(ZP_OK, zp_port_post(one, large, LARGE));
        leave(0);
        EXPECT(ZP_OK, zp_loop_run_once(loop));
        HOLDS(errors == round && messages == round - 1);
        EXPECT(ZP_OK, zp_loop_run_timeout(loop, 20)); /* it is tried again, and not told again */
        EXPECT(ZP_OK, zp_loop_run_ready(loop));
        HOLDS(errors == round && messages == round - 1);
        as_usual();
        while (messages < round) EXPECT(ZP_OK, zp_loop_run_once(loop));
        HOLDS(errors == round);
    }
    /* From inside it can help itself, and it can go. */
    then = as_usual;
    EXPECT(ZP_OK, zp_port_post(one, large, LARGE));
    leave(0);
    while (messages < 3) EXPECT(ZP_OK, zp_loop_run_once(loop));
    HOLDS(errors == 3 && removes == 0);
    then = remove_it;
    EXPECT(ZP_OK, zp_port_post(one, large, LARGE));
    leave(0);
    EXPECT(ZP_OK, zp_loop_run(loop));
    HOLDS(errors == 4 && messages == 3 && removes == 1);
    removes = 0;
    then = close_it;
    EXPECT(ZP_OK, zp_loop_insert(loop, other, &handlers, &messages));
    EXPECT(ZP_OK, zp_loop_run(loop));
    HOLDS(errors == 5 && messages == 3 && removes == 1);
    as_usual();
    EXPECT(ZP_CLOSED, zp_port_peer_state(one));
    EXPECT(ZP_OK, zp_port_close(one));
    EXPECT(ZP_OK, zp_loop_close(loop));
    HOLDS(removes == 1);
}

/* The ports of a message can be had later, and a channel cannot be made. */
static void no_descriptors(void) {
    zp_port carrier, far_carrier, given, end, list[2];
    zp_item item;
    zp_post post = a_post("take", 4, &item, 1);
    zp_message message;
    size_t count;
    open_pair(ZP_TRUST_USUAL);
    carrier = one;
    far_carrier = other;
    open_pair(ZP_TRUST_USUAL);
    given = one;
    end = other;
    item.id = given.id;
    EXPECT(ZP_OK, zp_port_post_with(carrier, &post, NULL));
    leave(0);
    errno = 0;
    EXPECT(ZP_SYSTEM, make_channel(list, 0));
    HOLDS(errno == EMFILE && list[0].id == 0 && list[1].id == 0);
    EXPECT(ZP_OK, zp_port_recv(far_carrier, &message));
    HOLDS(message.port_count == 1);
    errno = 0;
    EXPECT(ZP_SYSTEM, zp_message_take_ports(&message, list, 2, &count));
    HOLDS(errno == EMFILE && count == 0 && message.port_count == 1);
    as_usual();
    EXPECT(ZP_OK, zp_message_take_ports(&message, list, 2, &count));
    HOLDS(count == 1);
    works(list[0], end);
    EXPECT(ZP_OK, zp_message_release(&message));
    EXPECT(ZP_OK, zp_port_close(list[0]));
    EXPECT(ZP_OK, zp_port_close(end));
    EXPECT(ZP_OK, zp_port_close(carrier));
    EXPECT(ZP_OK, zp_port_close(far_carrier));
}

/* ---- So many left, and one call ---- */

enum { PLENTY = -1 };
static int left = PLENTY;

/* Whatever the status, all is as before afterwards; gives the status. */
static zp_status makes_a_channel(void) {
    zp_port ends[2];
    zp_status status = zp_channel_new(ends, NULL);
    if (status == ZP_OK) {
        EXPECT(ZP_OK, zp_port_close(ends[0]));
        EXPECT(ZP_OK, zp_port_close(ends[1]));
    } else {
        HOLDS(ends[0].id == 0 && ends[1].id == 0);
    }
    return status;
}

static zp_status makes_a_buffer(void) {
    zp_buffer buffer;
    zp_status status = zp_buffer_new(10000, &buffer);
    if (status == ZP_OK) EXPECT(ZP_OK, zp_buffer_free(buffer));
    else HOLDS(buffer.id == 0);
    return status;
}

static zp_buffer original;

static zp_status copies_a_buffer(void) {
    zp_buffer buffer;
    zp_status status = zp_buffer_copy(original, &buffer);
    if (status == ZP_OK) EXPECT(ZP_OK, zp_buffer_free(buffer));
    else HOLDS(buffer.id == 0);
    return status;
}

static zp_status makes_a_set(void) {
    zp_set set;
    zp_status status = zp_set_new(&set);
    if (status == ZP_OK) EXPECT(ZP_OK, zp_set_close(set));
    else HOLDS(set.id == 0);
    return status;
}

static zp_status makes_a_loop(void) {
    zp_loop new_loop;
    zp_status status = zp_loop_new(&new_loop);
    if (status == ZP_OK) EXPECT(ZP_OK, zp_loop_close(new_loop));
    else HOLDS(new_loop.id == 0);
    return status;
}

static zp_status joins_a_set(void) {
    zp_set set;
    int error;
    zp_status status = zp_set_new(&set);
    if (status != ZP_OK) return status;
    status = zp_set_insert(set, other, NULL);
    error = errno;
    if (status == ZP_OK) EXPECT(ZP_OK, zp_set_remove(set, other));
    EXPECT(ZP_OK, zp_set_close(set));
    errno = error;
    return status;
}

static zp_status posts_a_large_message(void) {
    zp_message message;
    zp_status status = zp_port_try_post(one, large, LARGE);
    int error = errno;
    if (status == ZP_OK) {
        as_usual();
        EXPECT(ZP_OK, zp_port_recv(other, &message));
        is_large(&message);
    }
    errno = error;
    return status;
}

static zp_status reserves_a_large_message(void) {
    zp_loan loan;
    zp_status status = zp_port_try_reserve(one, LARGE, &loan);
    if (status == ZP_OK) EXPECT(ZP_OK, zp_loan_cancel(&loan));
    else HOLDS(loan.data == NULL);
    return status;
}

static zp_port carried, far;

static zp_status gives_a_port(void) {
    zp_item item;
    zp_post post = a_post("port", 4, &item, 1);
    zp_message message;
    size_t index, count;
    zp_status status;
    int error;
    item.id = carried.id;
    status = zp_port_try_post_with(one, &post, &index);
    error = errno;
    HOLDS(index == ZP_NO_INDEX);
    as_usual();
    if (status == ZP_OK) {
        EXPECT(ZP_OK, zp_port_recv(other, &message));
        EXPECT(ZP_OK, zp_message_take_ports(&message, &carried, 1, &count));
        EXPECT(ZP_OK, zp_message_release(&message));
    }
    works(carried, far);
    errno = error;
    return status;
}

static zp_status takes_a_port_and_a_buffer(void) {
    zp_item items[2];
    zp_post post = a_post("both", 4, items, 2);
    zp_message message;
    size_t ports, buffers;
    zp_status status, second;
    int error;
    items[0].id = carried.id;
    items[1].id = original.id;
    as_usual();
    EXPECT(ZP_OK, zp_port_post_with(one, &post, NULL));
    EXPECT(ZP_OK, zp_port_recv(other, &message));
    if (left != PLENTY) leave(left);
    status = zp_message_take_ports(&message, &carried, 1, &ports);
    error = errno;
    second = zp_message_take_buffers(&message, &original, 1, &buffers);
    HOLDS((status == ZP_OK) == (ports == 1) && (second == ZP_OK) == (buffers == 1));
    HOLDS(message.port_count == 1 - ports && message.buffer_count == 1 - buffers);
    as_usual();
    if (ports == 0) EXPECT(ZP_OK, zp_message_take_ports(&message, &carried, 1, &ports));
    if (buffers == 0) EXPECT(ZP_OK, zp_message_take_buffers(&message, &original, 1, &buffers));
    EXPECT(ZP_OK, zp_message_release(&message));
    works(carried, far);
    errno = error;
    return status;
}

static zp_status goes_and_comes_as_descriptors(void) {
    uint8_t ticket[ZP_TICKET_LEN];
    int fds[ZP_MAX_DESCRIPTORS];
    size_t count;
    zp_port back;
    zp_status status = zp_port_detach(carried, ZP_TRUST_TRUSTED, ticket, fds, ZP_MAX_DESCRIPTORS, &count);
    int error = errno;
    if (status != ZP_OK) {
        HOLDS(count == 0);
        as_usual();
        works(carried, far);
        errno = error;
        return status;
    }
    status = zp_port_attach(ticket, fds, count, ZP_TRUST_TRUSTED, &back);
    error = errno;
    as_usual();
    if (status != ZP_OK) { /* the descriptors are gone, and the port with them */
        zp_message message;
        zp_port ends[2];
        HOLDS(back.id == 0);
        EXPECT(ZP_LOST, zp_port_recv(far, &message));
        EXPECT(ZP_OK, zp_port_close(far));
        EXPECT(ZP_OK, make_channel(ends, ZP_TRUST_TRUSTED));
        back = ends[0];
        far = ends[1];
    }
    carried = back;
    works(carried, far);
    errno = error;
    return status;
}

static zp_status spawns_and_waits(void) {
    static char *const argv[] = {(char *)(uintptr_t)"true", NULL};
    zp_port port;
    pid_t pid;
    int code;
    zp_status status = zp_spawn(argv, NULL, NULL, &port, &pid);
    if (status == ZP_OK) {
        HOLDS(waitpid(pid, &code, 0) == pid);
        EXPECT(ZP_OK, zp_port_close(port));
    } else {
        HOLDS(port.id == 0 && pid == 0);
    }
    return status;
}

static char address[64];

static zp_status listens(void) {
    char second[80];
    zp_server server;
    zp_status status;
    sprintf(second, "%s-second", address);
    status = zp_server_bind(second, &server);
    if (status == ZP_OK) EXPECT(ZP_OK, zp_server_close(server));
    else HOLDS(server.id == 0);
    return status;
}

/* With any number of descriptors left a call succeeds, or says that it has not enough; and with many it succeeds. */
static void sweep(void) {
    static zp_status (*const calls[])(void) = {
        makes_a_channel, makes_a_buffer, copies_a_buffer, makes_a_set, makes_a_loop, joins_a_set,
        posts_a_large_message, reserves_a_large_message, gives_a_port, takes_a_port_and_a_buffer,
        goes_and_comes_as_descriptors, spawns_and_waits, listens};
    zp_port ends[2];
    size_t call;
    int all_refused = 0;
    open_pair(ZP_TRUST_USUAL);
    EXPECT(ZP_OK, make_channel(ends, ZP_TRUST_TRUSTED));
    carried = ends[0];
    far = ends[1];
    EXPECT(ZP_OK, zp_buffer_new(5000, &original));
    for (call = 0; call < sizeof calls / sizeof calls[0]; call++) {
        int before, refused = 0;
        EXPECT(ZP_OK, calls[call]()); /* what is kept for the next time is there now */
        before = descriptors();
        for (left = 0; left <= MOST_LEFT; left++) {
            zp_status status;
            leave(left);
            errno = 0;
            status = calls[call]();
            if (status != ZP_OK) {
                EXPECT(ZP_SYSTEM, status);
                HOLDS(errno == EMFILE);
                refused++;
            }
            as_usual();
            works(one, other);
            HOLDS(descriptors() <= before);
        }
        left = PLENTY;
        EXPECT(ZP_OK, calls[call]());
        all_refused += refused;
    }
    HOLDS(all_refused >= (int)(sizeof calls / sizeof calls[0]));
    EXPECT(ZP_OK, zp_port_close(carried));
    EXPECT(ZP_OK, zp_port_close(far));
    EXPECT(ZP_OK, zp_buffer_free(original));
    close_pair();
}

/* A caller waits until there are descriptors for it, and for its credentials. */
static void accepts(const char *self) {
    zp_server server;
    int refused = 0;
    EXPECT(ZP_OK, zp_server_bind(address, &server));
    for (left = 0; left < MOST_LEFT; left++) {
        zp_caller caller;
        zp_credentials found;
        zp_port port;
        zp_message message;
        zp_status status;
        int code;
        pid_t pid = fork();
        HOLDS(pid >= 0);
        if (pid == 0) execl(self, self, address, (char *)NULL);
        EXPECT(ZP_OK, zp_server_accept(server, &caller, NULL));
        EXPECT(ZP_OK, zp_caller_admit(caller, NULL, &port));
        EXPECT(ZP_OK, zp_port_recv(port, &message)); /* it is about to call again */
        EXPECT(ZP_OK, zp_message_release(&message));
        EXPECT(ZP_OK, zp_port_close(port));
        leave(left);
        errno = 0;
        status = zp_server_accept(server, &caller, &found);
        if (status != ZP_OK) {
            EXPECT(ZP_SYSTEM, status);
            HOLDS(errno == EMFILE && caller.id == 0 && found.pidfd == -1 && found.pid == 0);
            as_usual();
            EXPECT(ZP_OK, zp_server_accept(server, &caller, &found));
            refused++;
        }
        as_usual();
        HOLDS(found.pid == pid && (found.pidfd == -1 || close(found.pidfd) == 0));
        EXPECT(ZP_OK, zp_caller_admit(caller, NULL, &port));
        HOLDS(waitpid(pid, &code, 0) == pid && WIFEXITED(code) && WEXITSTATUS(code) == 7);
        EXPECT(ZP_OK, zp_port_close(port));
    }
    left = PLENTY;
    HOLDS(refused > 0 && refused < MOST_LEFT);
    EXPECT(ZP_OK, zp_server_close(server));
}

/* A process that connects twice, and must be admitted twice. */
static int call_twice(const char *to) {
    zp_port port;
    EXPECT(ZP_OK, zp_connect(to, NULL, &port, NULL));
    EXPECT(ZP_OK, zp_port_post(port, "again", 5));
    EXPECT(ZP_OK, zp_port_close(port));
    EXPECT(ZP_OK, zp_connect(to, NULL, &port, NULL));
    EXPECT(ZP_OK, zp_port_close(port));
    return 7;
}

int main(int argc, char **argv) {
    alarm(55); /* whoever is stuck ends before the test that waits for it */
    if (argc > 1) return call_twice(argv[1]);
    memset(large, 'L', LARGE);
    sprintf(address, "@zeroport-scarce-%ld", (long)getpid());
    HOLDS(getrlimit(RLIMIT_NOFILE, &usual) == 0);
    no_descriptors();
    receives(ZP_TRUST_USUAL);
    receives(ZP_TRUST_UNTRUSTED);
    sets();
    loops();
    accepts(argv[0]);
    sweep();
    return 0;
}
