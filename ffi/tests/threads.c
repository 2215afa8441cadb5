/* Threads that use one port at the same time: one at a time gets in, and none of them is harmed. */
#define _POSIX_C_SOURCE 200809L

#include <pthread.h>
#include <time.h>
#include <unistd.h>

#include "expect.h"

enum { THREADS = 4, PORTS = 8, ROUNDS = 4000 };

static void pause_a_little(void) {
    struct timespec time = {0, 200000};
    nanosleep(&time, NULL);
}

/* As zp_port_recv; whoever asks for the port's state may be inside at this moment. */
static zp_status receive(zp_port port, zp_message *message) {
    zp_status status;
    while ((status = zp_port_recv(port, message)) == ZP_BUSY) continue;
    return status;
}

static void *wait_for_one(void *port) {
    static zp_status status;
    zp_message message;
    status = receive(*(zp_port *)port, &message);
    return &status;
}

/* A port on which one thread waits is not there for others, but for zp_port_shutdown. */
static void shut_down_under_a_waiting_thread(void) {
    zp_port ends[2], carrier[2];
    zp_post give = a_post("x", 1, ends, 1);
    zp_message message;
    pthread_t waiting;
    void *status;
    size_t number;
    int patience = 100000;
    EXPECT(ZP_OK, make_channel(ends, 0));
    EXPECT(ZP_OK, make_channel(carrier, 0));
    HOLDS(pthread_create(&waiting, NULL, wait_for_one, &ends[0]) == 0);
    while (zp_port_peer_state(ends[0]) != ZP_BUSY) {
        HOLDS(patience-- > 0);
        pause_a_little();
    }
    EXPECT(ZP_BUSY, zp_port_post(ends[0], "x", 1));
    EXPECT(ZP_BUSY, zp_port_try_recv(ends[0], &message));
    EXPECT(ZP_BUSY, zp_port_max_payload(ends[0], &number));
    EXPECT(ZP_BUSY, zp_port_close(ends[0]));
    EXPECT(ZP_BUSY, zp_port_post_with(carrier[0], &give, &number));
    HOLDS(number == 0);

    EXPECT(ZP_OK, zp_port_shutdown(ends[0]));
    HOLDS(pthread_join(waiting, &status) == 0);
    EXPECT(ZP_CLOSED, *(zp_status *)status);
    EXPECT(ZP_CLOSED, zp_port_recv(ends[1], &message));
    EXPECT(ZP_OK, zp_port_close(ends[0]));
    EXPECT(ZP_OK, zp_port_close(ends[1]));
    EXPECT(ZP_OK, zp_port_close(carrier[0]));
    EXPECT(ZP_OK, zp_port_close(carrier[1]));
}

static size_t received;

static void *receive_all(void *half) {
    zp_status status;
    zp_message message;
    while ((status = receive(*(zp_port *)half, &message)) == ZP_OK) {
        HOLDS(message.len == sizeof received && memcmp(message.data, &received, message.len) == 0);
        EXPECT(ZP_OK, zp_message_release(&message));
        __atomic_add_fetch(&received, 1, __ATOMIC_RELAXED);
    }
    EXPECT(ZP_CLOSED, status);
    return NULL;
}

/* One thread waits in zp_port_recv, and another one posts: full duplex. */
static void a_half_for_each_thread(void) {
    zp_port ends[2], halves[2], whole;
    zp_message message;
    pthread_t receiving;
    size_t n;
    EXPECT(ZP_OK, make_channel(ends, 0));
    EXPECT(ZP_OK, zp_port_split(ends[0], halves));
    EXPECT(ZP_FREED, zp_port_post(ends[0], "x", 1));
    HOLDS(pthread_create(&receiving, NULL, receive_all, &halves[1]) == 0);
    while (zp_port_peer_state(halves[1]) != ZP_BUSY) pause_a_little();
    for (n = 0; n < ROUNDS; n++) {
        EXPECT(ZP_OK, zp_port_post(halves[0], &n, sizeof n));
        EXPECT(ZP_OK, zp_port_recv(ends[1], &message));
        EXPECT(ZP_OK, zp_port_post(ends[1], message.data, message.len));
        EXPECT(ZP_OK, zp_message_release(&message));
    }
    /* It has them all, and waits once more. */
    while (__atomic_load_n(&received, __ATOMIC_RELAXED) < ROUNDS) pause_a_little();
    while (zp_port_peer_state(halves[1]) != ZP_BUSY) pause_a_little();
    EXPECT(ZP_BUSY, zp_port_join(halves[0], halves[1], &whole));
    HOLDS(whole.id == 0);
    EXPECT(ZP_OK, zp_port_close(ends[1]));
    HOLDS(pthread_join(receiving, NULL) == 0);
    HOLDS(received == ROUNDS);
    EXPECT(ZP_OK, zp_port_join(halves[0], halves[1], &whole));
    EXPECT(ZP_FREED, zp_port_close(halves[0]));
    EXPECT(ZP_FREED, zp_port_close(halves[1]));
    EXPECT(ZP_CLOSED, zp_port_recv(whole, &message));
    EXPECT(ZP_OK, zp_port_close(whole));
}

static void halves_end_together(void) {
    zp_port ends[2], halves[2];
    zp_message message;
    pthread_t waiting;
    void *status;
    /* The second half that is closed closes the port. */
    EXPECT(ZP_OK, make_channel(ends, 0));
    EXPECT(ZP_OK, zp_port_split(ends[0], halves));
    EXPECT(ZP_OK, zp_port_post(ends[1], "to half", 7));
    EXPECT(ZP_OK, zp_port_close(halves[0]));
    EXPECT(ZP_OK, zp_port_peer_state(ends[1]));
    EXPECT(ZP_OK, zp_port_post(ends[1], "a port", 6));
    EXPECT(ZP_OK, zp_port_recv(halves[1], &message));
    HOLDS(message.len == 7);
    EXPECT(ZP_BORROWED, zp_port_close(halves[1]));
    EXPECT(ZP_OK, zp_message_release(&message));
    EXPECT(ZP_OK, zp_port_close(halves[1]));
    EXPECT(ZP_CLOSED, zp_port_recv(ends[1], &message));
    EXPECT(ZP_OK, zp_port_close(ends[1]));
    /* A shutdown of one ends both. */
    EXPECT(ZP_OK, make_channel(ends, 0));
    EXPECT(ZP_OK, zp_port_split(ends[0], halves));
    HOLDS(pthread_create(&waiting, NULL, wait_for_one, &halves[1]) == 0);
    while (zp_port_peer_state(halves[1]) != ZP_BUSY) pause_a_little();
    EXPECT(ZP_OK, zp_port_shutdown(halves[0]));
    HOLDS(pthread_join(waiting, &status) == 0);
    EXPECT(ZP_CLOSED, *(zp_status *)status);
    EXPECT(ZP_CLOSED, zp_port_post(halves[0], "x", 1));
    EXPECT(ZP_CLOSED, zp_port_recv(ends[1], &message));
    EXPECT(ZP_OK, zp_port_close(halves[0]));
    EXPECT(ZP_OK, zp_port_close(halves[1]));
    EXPECT(ZP_OK, zp_port_close(ends[1]));
}

/* Each half does its part. */
static void what_a_half_has_not(void) {
    zp_port ends[2], halves[2], more[2], carrier[2], whole;
    zp_post posts[1];
    zp_handlers handlers = {0};
    zp_message message;
    zp_set set;
    zp_loop loop;
    zp_loan loan;
    zp_info info;
    uint8_t ticket[ZP_TICKET_LEN];
    int fds[ZP_MAX_DESCRIPTORS], fd, half;
    size_t count;
    handlers.size = sizeof handlers;
    EXPECT(ZP_OK, zp_set_new(&set));
    EXPECT(ZP_OK, zp_loop_new(&loop));
    EXPECT(ZP_OK, make_channel(carrier, 0));
    EXPECT(ZP_OK, make_channel(ends, 0));
    EXPECT(ZP_OK, zp_port_split(ends[0], halves));
    posts[0] = a_post("x", 1, NULL, 0);

    EXPECT(ZP_HALF, zp_port_recv(halves[0], &message));
    HOLDS(message.data == NULL);
    EXPECT(ZP_HALF, zp_port_try_recv(halves[0], &message));
    EXPECT(ZP_HALF, zp_port_recv_timeout(halves[0], &message, 1));
    EXPECT(ZP_HALF, zp_port_recv_all(halves[0], &message, 1, &count));
    EXPECT(ZP_HALF, zp_port_fd(halves[0], &fd));
    HOLDS(fd == -1);
    EXPECT(ZP_HALF, zp_port_arm(halves[0]));
    EXPECT(ZP_HALF, zp_port_disarm(halves[0]));

    EXPECT(ZP_HALF, zp_port_post(halves[1], "x", 1));
    EXPECT(ZP_HALF, zp_port_try_post(halves[1], "x", 1));
    EXPECT(ZP_HALF, zp_port_post_with(halves[1], posts, &count));
    HOLDS(count == ZP_NO_INDEX);
    EXPECT(ZP_HALF, zp_port_post_all(halves[1], posts, 1, &count));
    HOLDS(count == 0);
    EXPECT(ZP_HALF, zp_port_post_all_timeout(halves[1], posts, 1, &count, 1));
    EXPECT(ZP_HALF, zp_port_reserve(halves[1], 1, &loan));
    HOLDS(loan.data == NULL);
    EXPECT(ZP_HALF, zp_port_max_payload(halves[1], &count));

    for (half = 0; half < 2; half++) {
        zp_post give = a_post("half", 4, &halves[half], 1);
        EXPECT(ZP_HALF, zp_port_post_with(carrier[0], &give, &count));
        HOLDS(count == 0);
        EXPECT(ZP_HALF, zp_port_detach(halves[half], ZP_TRUST_TRUSTED, ticket, fds,
                                       ZP_MAX_DESCRIPTORS, &count));
        EXPECT(ZP_HALF, zp_set_insert(set, halves[half], NULL));
        EXPECT(ZP_HALF, zp_loop_insert(loop, halves[half], &handlers, NULL));
        EXPECT(ZP_HALF, zp_port_split(halves[half], more));
        HOLDS(more[0].id == 0 && more[1].id == 0);
        EXPECT(ZP_OK, zp_port_peer_state(halves[half]));
        EXPECT(ZP_OK, zp_port_set_wait(halves[half], ZP_WAIT_SLEEP));
        EXPECT(ZP_OK, zp_port_info(halves[half], &info));
        HOLDS(info.is_trusted == 1 && info.is_member == 0);
        HOLDS((info.max_payload > 0) == (half == 0));
    }

    /* All that it has still works. */
    EXPECT(ZP_OK, zp_port_post_all(halves[0], posts, 1, &count));
    EXPECT(ZP_OK, zp_port_reserve(halves[0], 1, &loan));
    EXPECT(ZP_LOANED, zp_port_close(halves[0]));
    EXPECT(ZP_LOANED, zp_port_join(halves[0], halves[1], &whole));
    EXPECT(ZP_OK, zp_loan_publish(&loan, 1, 0, NULL, 0, NULL));
    EXPECT(ZP_OK, zp_port_recv_all(ends[1], &message, 1, &count));
    EXPECT(ZP_OK, zp_message_release(&message));
    EXPECT(ZP_OK, zp_port_fd(halves[1], &fd));
    EXPECT(ZP_OK, zp_port_arm(halves[1]));
    EXPECT(ZP_OK, zp_port_post(ends[1], "x", 1));
    EXPECT(ZP_READY, zp_port_arm(halves[1]));
    EXPECT(ZP_OK, zp_port_try_recv(halves[1], &message));
    EXPECT(ZP_BORROWED, zp_port_join(halves[0], halves[1], &whole));
    EXPECT(ZP_OK, zp_message_release(&message));

    EXPECT(ZP_OK, zp_set_close(set));
    EXPECT(ZP_OK, zp_loop_close(loop));
    EXPECT(ZP_OK, zp_port_close(carrier[0]));
    EXPECT(ZP_OK, zp_port_close(carrier[1]));
    EXPECT(ZP_OK, zp_port_shutdown(halves[0]));
    EXPECT(ZP_OK, zp_port_close(halves[0]));
    EXPECT(ZP_OK, zp_port_close(halves[1]));
    EXPECT(ZP_OK, zp_port_close(ends[1]));
}

static void what_cannot_be_split_or_joined(void) {
    zp_port ends[2], halves[2], others[2], other, whole;
    zp_message message;
    zp_loan loan;
    EXPECT(ZP_OK, make_channel(ends, 0));
    EXPECT(ZP_BAD_ARGUMENT, zp_port_split(ends[0], NULL));
    EXPECT(ZP_OK, zp_port_post(ends[1], "x", 1));
    EXPECT(ZP_OK, zp_port_recv(ends[0], &message));
    EXPECT(ZP_BORROWED, zp_port_split(ends[0], halves));
    HOLDS(halves[0].id == 0 && halves[1].id == 0);
    EXPECT(ZP_OK, zp_message_release(&message));
    EXPECT(ZP_OK, zp_port_reserve(ends[0], 1, &loan));
    EXPECT(ZP_LOANED, zp_port_split(ends[0], halves));
    EXPECT(ZP_OK, zp_loan_cancel(&loan));
    EXPECT(ZP_OK, zp_port_post(ends[1], "waits", 5));
    EXPECT(ZP_OK, zp_port_split(ends[0], halves));
    EXPECT(ZP_FREED, zp_port_split(ends[0], others));
    EXPECT(ZP_FREED, zp_port_shutdown(ends[0]));
    EXPECT(ZP_OK, zp_port_split(ends[1], others));

    EXPECT(ZP_BAD_ARGUMENT, zp_port_join(halves[0], halves[1], NULL));
    EXPECT(ZP_HALF, zp_port_join(halves[1], halves[0], &whole));
    EXPECT(ZP_HALF, zp_port_join(halves[0], halves[0], &whole));
    EXPECT(ZP_HALF, zp_port_join(halves[1], halves[1], &whole));
    EXPECT(ZP_HALF, zp_port_join(halves[0], others[0], &whole));
    EXPECT(ZP_STRANGER, zp_port_join(halves[0], others[1], &whole));
    EXPECT(ZP_FREED, zp_port_join(halves[0], ends[0], &whole));
    HOLDS(whole.id == 0);
    EXPECT(ZP_OK, zp_port_join(halves[0], halves[1], &whole));
    EXPECT(ZP_OK, zp_port_join(others[0], others[1], &other));
    EXPECT(ZP_HALF, zp_port_join(whole, other, &ends[0]));

    /* A port as before, with what waited in it. */
    EXPECT(ZP_OK, zp_port_recv(whole, &message));
    HOLDS(message.len == 5);
    EXPECT(ZP_OK, zp_message_release(&message));
    EXPECT(ZP_OK, zp_port_post(whole, "x", 1));
    EXPECT(ZP_OK, zp_port_recv(other, &message));
    EXPECT(ZP_OK, zp_message_release(&message));
    EXPECT(ZP_OK, zp_port_close(whole));
    EXPECT(ZP_OK, zp_port_close(other));
}

/* Handles and messages that all threads use, copied from one another without any order. */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static zp_port ports[PORTS];
static zp_message messages[PORTS];

static zp_port port_at(unsigned place) {
    zp_port port;
    pthread_mutex_lock(&lock);
    port = ports[place % PORTS];
    pthread_mutex_unlock(&lock);
    return port;
}

/* Closes the port that was there; or, where that cannot be, the new one. */
static void set_port(unsigned place, zp_port port) {
    zp_status status;
    pthread_mutex_lock(&lock);
    status = zp_port_close(ports[place % PORTS]);
    if (status == ZP_BORROWED || status == ZP_BUSY) {
        zp_port_close(port);
    } else {
        ports[place % PORTS] = port;
    }
    pthread_mutex_unlock(&lock);
}

static zp_message message_at(unsigned place) {
    zp_message message;
    pthread_mutex_lock(&lock);
    message = messages[place % PORTS];
    pthread_mutex_unlock(&lock);
    return message;
}

/* Releases the message that was there; or, where that cannot be, the new one. */
static void set_message(unsigned place, zp_message message) {
    pthread_mutex_lock(&lock);
    if (zp_message_release(&messages[place % PORTS]) == ZP_BUSY) {
        zp_message_release(&message);
    } else {
        messages[place % PORTS] = message;
    }
    pthread_mutex_unlock(&lock);
}

/* One call with whatever is there. A handle may be anything by now; the library must know. */
static zp_status do_something(unsigned dice, unsigned place, unsigned other) {
    zp_port given[2], taken[2], whole;
    zp_post post;
    zp_message message;
    zp_status status;
    size_t count;
    switch (dice % 12) {
        case 0:
            status = make_channel(given, place % 2 ? ZP_TRUST_UNTRUSTED : 0);
            if (status == ZP_OK) {
                set_port(place, given[0]);
                set_port(other, given[1]);
            }
            return status;
        case 1:
            return zp_port_close(port_at(place));
        case 2:
            given[0] = port_at(other);
            given[1] = port_at(other + 1);
            post = a_post("ports", 5, given, 1 + other % 2);
            return zp_port_try_post_with(port_at(place), &post, &count);
        case 3:
            message = message_at(place);
            status = zp_message_take_ports(&message, taken, 2, &count);
            if (status == ZP_OK && count > 0) set_port(other, taken[0]);
            if (status == ZP_OK && count > 1) set_port(other + 1, taken[1]);
            return status;
        case 4:
        case 5:
            message = message_at(place);
            return zp_message_release(&message);
        case 6:
        case 7:
            status = zp_port_try_recv(port_at(place), &message);
            if (status == ZP_OK) set_message(place, message);
            return status;
        case 8:
            status = zp_port_split(port_at(place), given);
            if (status == ZP_OK) {
                set_port(place, given[0]);
                set_port(other, given[1]);
            }
            return status;
        case 9:
            status = zp_port_join(port_at(place), port_at(other), &whole);
            if (status == ZP_OK) set_port(place, whole);
            return status;
        case 10:
            return dice % 48 == 10 ? zp_port_shutdown(port_at(place))
                                  : zp_port_peer_state(port_at(place));
        default:
            return zp_port_try_post(port_at(place), "bytes", 5);
    }
}

static void *at_random(void *seed) {
    static unsigned seen[THREADS][ZP_INTERNAL + 1];
    unsigned dice = *(unsigned *)seed * 2654435761u, round;
    unsigned *mine = seen[*(unsigned *)seed];
    for (round = 0; round < ROUNDS; round++) {
        zp_status status;
        dice = dice * 1664525u + 1013904223u;
        status = do_something(dice >> 24, dice >> 16 & 0xff, dice >> 8 & 0xff);
        HOLDS(status >= ZP_OK && status < ZP_INTERNAL && status != ZP_VIOLATED);
        mine[status]++;
    }
    return mine;
}

static void threads_that_use_whatever_they_find(void) {
    pthread_t threads[THREADS];
    unsigned seeds[THREADS], seen[ZP_INTERNAL + 1] = {0}, index, status;
    for (index = 0; index < THREADS; index++) {
        seeds[index] = index;
        HOLDS(pthread_create(&threads[index], NULL, at_random, &seeds[index]) == 0);
    }
    for (index = 0; index < THREADS; index++) {
        void *mine;
        HOLDS(pthread_join(threads[index], &mine) == 0);
        for (status = 0; status <= ZP_INTERNAL; status++) {
            seen[status] += ((unsigned *)mine)[status];
        }
    }
    /* It was no walk among closed doors. */
    HOLDS(seen[ZP_OK] > ROUNDS / 2 && seen[ZP_FREED] > 0 && seen[ZP_TRANSFERRED] > 0);
    HOLDS(seen[ZP_BORROWED] > 0 && seen[ZP_DUPLICATE] + seen[ZP_CARRIER] > 0);
    for (status = 0; status <= ZP_INTERNAL; status++) {
        if (seen[status] > 0) printf("%6u %s\n", seen[status], zp_status_text((zp_status)status));
    }
}

int main(void) {
    alarm(55); /* whoever is stuck ends before the test that waits for it */
    shut_down_under_a_waiting_thread();
    a_half_for_each_thread();
    halves_end_together();
    what_a_half_has_not();
    what_cannot_be_split_or_joined();
    threads_that_use_whatever_they_find();
    return 0;
}
