/* What one thread uses all the time has a short way in, and what most messages are has one, too: they tell the same as the long
 * ones. */
#define _DEFAULT_SOURCE

#include <pthread.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "expect.h"

/* More than it takes to be at home somewhere, which some 4000 calls do: of a whole port there are three each time. */
enum { OFTEN = 1500, OFTEN_FOR_A_HALF = 4200, LONGEST = 400, HELD = 20 };

/* Two ends, each as what posts and what receives: the same handle twice, or two halves. */
typedef struct end {
    zp_port posts, receives;
} end;

static end one, other;
static uint32_t trust_of_both;
static size_t often = OFTEN;
static __thread unsigned char bytes[LONGEST];

static void post(end from, size_t len, unsigned char what) {
    memset(bytes, what, len);
    EXPECT(ZP_OK, zp_port_post(from.posts, bytes, len));
}

static void expect(const zp_message *message, size_t len, unsigned char what) {
    unsigned char expected[LONGEST];
    HOLDS(message->len == len && message->tag == 0);
    HOLDS(message->port_count == 0 && message->buffer_count == 0);
    memset(expected, what, len);
    HOLDS(memcmp(message->data, expected, len) == 0);
}

static void release(zp_message *message) {
    const zp_message none = {0};
    EXPECT(ZP_OK, zp_message_release(message));
    HOLDS(memcmp(message, &none, sizeof none) == 0);
}

static void receive(end to, size_t len, unsigned char what) {
    zp_message message;
    EXPECT(ZP_OK, zp_port_recv(to.receives, &message));
    expect(&message, len, what);
    release(&message);
}

static void go_to_and_fro(size_t times) {
    for (; times > 0; times--) {
        post(one, 64, 1);
        receive(other, 64, 1);
        post(other, 64, 2);
        receive(one, 64, 2);
    }
}

static void open_ends(uint32_t trust, int in_halves) {
    zp_port ends[2], halves[2];
    trust_of_both = trust;
    often = in_halves ? OFTEN_FOR_A_HALF : OFTEN;
    EXPECT(ZP_OK, make_channel(ends, trust));
    one.posts = one.receives = ends[0];
    other.posts = other.receives = ends[1];
    if (in_halves) {
        EXPECT(ZP_OK, zp_port_split(ends[0], halves));
        one.posts = halves[0];
        one.receives = halves[1];
        EXPECT(ZP_OK, zp_port_split(ends[1], halves));
        other.posts = halves[0];
        other.receives = halves[1];
    }
    go_to_and_fro(often);
}

static void close_end(end it) {
    EXPECT(ZP_OK, zp_port_close(it.posts));
    if (it.receives.id != it.posts.id) EXPECT(ZP_OK, zp_port_close(it.receives));
}

static void lengths_that_change(void) {
    size_t len, round;
    for (len = 0; len < LONGEST; len++) {
        post(one, len, (unsigned char)len);
        receive(other, len, (unsigned char)len);
    }
    for (round = 0; round < 1000; round++) {
        len = round * 7 % LONGEST;
        post(one, len, 3);
        post(one, LONGEST - 1 - len, 4);
        receive(other, len, 3);
        receive(other, LONGEST - 1 - len, 4);
    }
}

/* In any order; the numbers of those that were released mean nothing any more. */
static void many_are_held(void) {
    zp_message held[HELD], again, empty;
    size_t round, i;
    for (round = 0; round < 100; round++) {
        for (i = 0; i < HELD; i++) post(one, i, (unsigned char)i);
        for (i = 0; i < HELD; i++) EXPECT(ZP_OK, zp_port_try_recv(other.receives, &held[i]));
        EXPECT(ZP_EMPTY, zp_port_try_recv(other.receives, &empty));
        for (i = 0; i < HELD; i++) {
            size_t which = i * 7 % HELD; /* each once */
            expect(&held[which], which, (unsigned char)which);
            again = held[which];
            release(&held[which]);
            EXPECT(ZP_FREED, zp_message_release(&again));
        }
        post(one, 4, 4);
        EXPECT(ZP_OK, zp_port_recv(other.receives, &held[0]));
        again = held[0];
        release(&held[0]);
        post(one, 5, 5);
        EXPECT(ZP_OK, zp_port_recv(other.receives, &held[0]));
        EXPECT(ZP_FREED, zp_message_release(&again)); /* this one is in its place */
        expect(&held[0], 5, 5);
        release(&held[0]);
    }
}

static void unusual_messages(void) {
    zp_port pair[2], taken;
    zp_message message;
    zp_post tagged = a_post("x", 1, NULL, 0), with_a_port;
    size_t count, round;
    tagged.tag = 77;
    for (round = 0; round < 100; round++) {
        EXPECT(ZP_OK, make_channel(pair, trust_of_both));
        with_a_port = a_post("port", 4, &pair[0], 1);
        EXPECT(ZP_OK, zp_port_post_with(one.posts, &tagged, NULL));
        EXPECT(ZP_OK, zp_port_post_with(one.posts, &with_a_port, NULL));
        post(one, 6, 6);
        EXPECT(ZP_OK, zp_port_recv(other.receives, &message));
        HOLDS(message.tag == 77 && message.len == 1);
        release(&message);
        EXPECT(ZP_OK, zp_port_recv(other.receives, &message));
        HOLDS(message.port_count == 1 && message.len == 4);
        EXPECT(ZP_OK, zp_message_take_ports(&message, &taken, 1, &count));
        receive(other, 6, 6);
        release(&message);
        EXPECT(ZP_OK, zp_port_close(taken));
        EXPECT(ZP_OK, zp_port_close(pair[1]));
    }
}

static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * 1e3 + time.tv_nsec / 1e6;
}

static void nothing_comes(void) {
    zp_message message;
    double start = now();
    EXPECT(ZP_EMPTY, zp_port_try_recv(other.receives, &message));
    EXPECT(ZP_EMPTY, zp_port_recv_timeout(other.receives, &message, 20));
    HOLDS(now() - start >= 20);
    EXPECT(ZP_BAD_ARGUMENT, zp_port_recv(other.receives, NULL));
    EXPECT(ZP_BAD_ARGUMENT, zp_port_post(one.posts, NULL, 1));
    EXPECT(ZP_BAD_ARGUMENT, zp_message_release(NULL));
}

/* Whether something lies in memory that processes share. */
static int is_shared(const void *data) {
    FILE *maps = fopen("/proc/self/maps", "r");
    char line[512];
    int found = 0;
    HOLDS(maps != NULL);
    while (fgets(line, sizeof line, maps) != NULL) {
        unsigned long start, end;
        HOLDS(sscanf(line, "%lx-%lx", &start, &end) == 2);
        if (start <= (unsigned long)data && (unsigned long)data < end) found = strstr(line, "memfd") != NULL;
    }
    fclose(maps);
    return found;
}

/* A stranger cannot change what was received. */
static void where_messages_lie(void) {
    zp_message message;
    post(one, 11, 11);
    EXPECT(ZP_OK, zp_port_recv(other.receives, &message));
    HOLDS(is_shared(message.data) == (trust_of_both == ZP_TRUST_TRUSTED));
    release(&message);
}

/* Each bit of a handle counts. */
static void handles_that_are_none(void) {
    zp_port posts = one.posts, receives = other.receives;
    zp_message message, wrong;
    size_t bit;
    post(one, 7, 7);
    EXPECT(ZP_OK, zp_port_recv(other.receives, &message));
    for (bit = 16; bit < 64; bit++) {
        posts.id = one.posts.id ^ (uint64_t)1 << bit;
        receives.id = other.receives.id ^ (uint64_t)1 << bit;
        wrong = message;
        wrong.opaque[0] = receives.id;
        EXPECT(ZP_BAD_HANDLE, zp_port_post(posts, "x", 1));
        EXPECT(ZP_BAD_HANDLE, zp_port_recv(receives, &wrong));
        wrong = message;
        wrong.opaque[0] = receives.id;
        EXPECT(ZP_BAD_HANDLE, zp_message_release(&wrong));
    }
    release(&message);
}

static void *use(void *unused) {
    go_to_and_fro(100);
    return unused;
}

/* Another thread takes it over, and this one takes it back. */
static void by_another_thread(void) {
    pthread_t thread;
    HOLDS(pthread_create(&thread, NULL, use, NULL) == 0);
    HOLDS(pthread_join(thread, NULL) == 0);
    go_to_and_fro(often);
}

static void in_a_fork(void) {
    zp_message message, copy;
    int status;
    pid_t child;
    post(one, 8, 8);
    EXPECT(ZP_OK, zp_port_recv(other.receives, &message));
    post(one, 9, 9); /* which is for the parent */
    child = fork();
    HOLDS(child >= 0);
    if (child == 0) {
        EXPECT(ZP_DETACHED, zp_port_post(one.posts, "x", 1));
        EXPECT(ZP_DETACHED, zp_port_post(one.posts, bytes, LONGEST));
        EXPECT(ZP_DETACHED, zp_port_try_post(one.posts, "x", 1));
        EXPECT(ZP_DETACHED, zp_port_recv(other.receives, &copy));
        EXPECT(ZP_DETACHED, zp_port_try_recv(other.receives, &copy));
        EXPECT(ZP_DETACHED, zp_port_peer_state(one.posts));
        release(&message);
        EXPECT(ZP_OK, zp_port_close(one.posts));
        open_ends(0, 0); /* its own */
        close_end(one);
        close_end(other);
        _exit(7);
    }
    HOLDS(waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 7);
    expect(&message, 8, 8);
    release(&message);
    receive(other, 9, 9);
    go_to_and_fro(100);
}

static void the_end(void) {
    zp_message message;
    post(one, 9, 9);
    post(one, 10, 10);
    close_end(one);
    EXPECT(ZP_FREED, zp_port_post(one.posts, "x", 1));
    EXPECT(ZP_FREED, zp_port_recv(one.receives, &message));
    receive(other, 9, 9);
    EXPECT(ZP_OK, zp_port_recv(other.receives, &message));
    EXPECT(ZP_CLOSED, zp_port_post(other.posts, "x", 1));
    expect(&message, 10, 10);
    release(&message);
    EXPECT(ZP_CLOSED, zp_port_recv(other.receives, &message));
    close_end(other);
}

/* What is not read yet is not read any more. */
static void shut_down(void) {
    zp_message message;
    post(one, 12, 12);
    EXPECT(ZP_OK, zp_port_shutdown(other.receives));
    EXPECT(ZP_CLOSED, zp_port_recv(other.receives, &message));
    EXPECT(ZP_CLOSED, zp_port_post(other.posts, "x", 1));
    EXPECT(ZP_CLOSED, zp_port_recv(one.receives, &message));
    close_end(one);
    close_end(other);
}

static void all_of_it(uint32_t trust, int in_halves) {
    open_ends(trust, in_halves);
    shut_down();
    open_ends(trust, in_halves);
    where_messages_lie();
    lengths_that_change();
    many_are_held();
    unusual_messages();
    nothing_comes();
    handles_that_are_none();
    by_another_thread();
    in_a_fork();
    the_end();
}

/* The ring is the whole queue: a post finds no room, until something is released. */
static void no_room(void) {
    zp_channel_options options = ZP_CHANNEL_OPTIONS_INIT;
    zp_port ends[2];
    zp_message message;
    size_t posted, round;
    options.limit[0] = options.limit[1] = 0;
    EXPECT(ZP_OK, zp_channel_new(ends, &options));
    one.posts = one.receives = ends[0];
    other.posts = other.receives = ends[1];
    go_to_and_fro(often);
    for (round = 0; round < 10; round++) {
        for (posted = 0; zp_port_try_post(one.posts, bytes, 100) == ZP_OK; posted++) continue;
        HOLDS(posted > 10);
        EXPECT(ZP_FULL, zp_port_try_post(one.posts, bytes, 100));
        EXPECT(ZP_FULL, zp_port_post_timeout(one.posts, bytes, 100, 1));
        for (; posted > 0; posted--) {
            EXPECT(ZP_OK, zp_port_try_recv(other.receives, &message));
            HOLDS(message.len == 100);
            release(&message);
        }
        EXPECT(ZP_EMPTY, zp_port_try_recv(other.receives, &message));
    }
    close_end(one);
    close_end(other);
}

enum { MANY = 1000 };

static void *post_many(void *unused) {
    size_t i;
    for (i = 0; i < MANY; i++) post(one, i % LONGEST, (unsigned char)i);
    return unused;
}

static void *receive_many(void *unused) {
    size_t i;
    for (i = 0; i < MANY; i++) receive(other, i % LONGEST, (unsigned char)i);
    return unused;
}

/* Each end sleeps at once, the poster for room, the reader for messages: and each is woken, by who is at home here. */
static void who_sleeps_is_woken(void) {
    zp_channel_options options = ZP_CHANNEL_OPTIONS_INIT;
    zp_port ends[2];
    pthread_t thread;
    options.limit[0] = options.limit[1] = 0;
    options.capacity[0] = options.capacity[1] = 4096;
    options.wait = ZP_WAIT_SLEEP;
    EXPECT(ZP_OK, zp_channel_new(ends, &options));
    one.posts = one.receives = ends[0];
    other.posts = other.receives = ends[1];
    go_to_and_fro(often);
    HOLDS(pthread_create(&thread, NULL, post_many, NULL) == 0);
    receive_many(NULL);
    HOLDS(pthread_join(thread, NULL) == 0);
    go_to_and_fro(often);
    HOLDS(pthread_create(&thread, NULL, receive_many, NULL) == 0);
    post_many(NULL);
    HOLDS(pthread_join(thread, NULL) == 0);
    close_end(one);
    close_end(other);
}

int main(void) {
    alarm(55); /* whoever is stuck ends before the test that waits for it */
    all_of_it(ZP_TRUST_TRUSTED, 0);
    all_of_it(ZP_TRUST_TRUSTED, 1);
    all_of_it(ZP_TRUST_UNTRUSTED, 0);
    no_room();
    who_sleeps_is_woken();
    return 0;
}
