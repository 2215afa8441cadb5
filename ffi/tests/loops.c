/* Sets and loops: what they tell, and that `removed` comes once, whatever way a port goes. */
#define _POSIX_C_SOURCE 200809L

#include <poll.h>
#include <pthread.h>
#include <unistd.h>

#include "expect.h"

enum { PORTS = 4 };

static zp_port near[PORTS], far[PORTS];

static void open_all(void) {
    size_t index;
    for (index = 0; index < PORTS; index++) {
        zp_port ends[2];
        EXPECT(ZP_OK, make_channel(ends, ZP_TRUST_USUAL));
        near[index] = ends[0];
        far[index] = ends[1];
    }
}

static void close_all(const zp_port *ports) {
    size_t index;
    for (index = 0; index < PORTS; index++) EXPECT(ZP_OK, zp_port_close(ports[index]));
}

static int is_readable(int fd) {
    struct pollfd poll_fd = {0, POLLIN, 0};
    poll_fd.fd = fd;
    return poll(&poll_fd, 1, 0) == 1;
}

static void *wake(void *set) {
    while (zp_set_wake(*(zp_set *)set) == ZP_OK) sched_yield();
    return NULL;
}

static void sets(void) {
    int users[PORTS], fd;
    zp_set set, gone;
    zp_event events[16];
    zp_message message;
    zp_info info;
    size_t index, count;
    open_all();
    EXPECT(ZP_OK, zp_set_new(&set));
    for (index = 0; index < PORTS; index++) {
        EXPECT(ZP_OK, zp_set_insert(set, near[index], &users[index]));
        EXPECT(ZP_MEMBER, zp_set_insert(set, near[index], NULL));
        EXPECT(ZP_MEMBER, zp_port_try_recv(near[index], &message));
        EXPECT(ZP_MEMBER, zp_port_arm(near[index]));
    }
    EXPECT(ZP_OK, zp_port_info(near[0], &info));
    HOLDS(info.is_member && info.is_trusted);
    EXPECT(ZP_EMPTY, zp_set_try_wait(set, events, 16, &count));
    EXPECT(ZP_EMPTY, zp_set_wait_timeout(set, events, 16, &count, 1));
    HOLDS(count == 0);

    /* A member posts as ever, and the set receives. */
    EXPECT(ZP_OK, zp_port_post(near[1], "from a member", 13));
    EXPECT(ZP_OK, zp_port_recv(far[1], &message));
    EXPECT(ZP_OK, zp_message_release(&message));
    EXPECT(ZP_OK, zp_port_post(far[1], "one", 3));
    EXPECT(ZP_OK, zp_port_post(far[2], "two", 3));
    EXPECT(ZP_OK, zp_set_wait(set, events, 1, &count));
    HOLDS(count == 1 && events[0].kind == ZP_EVENT_MESSAGE);
    EXPECT(ZP_OK, zp_set_wait(set, events + 1, 15, &count)); /* while a message is held */
    HOLDS(count == 1);
    for (index = 0; index < 2; index++) {
        HOLDS(events[index].user == &users[events[index].port.id == near[1].id ? 1 : 2]);
        HOLDS(events[index].message.len == 3 && events[index].status == ZP_OK);
    }
    EXPECT(ZP_BORROWED, zp_set_close(set));
    EXPECT(ZP_BORROWED, zp_set_remove(set, events[0].port));
    EXPECT(ZP_BORROWED, zp_port_close(events[0].port));
    EXPECT(ZP_OK, zp_message_release(&events[0].message));
    EXPECT(ZP_OK, zp_message_release(&events[1].message));

    /* An end is told once; its messages have to be released before the set goes on. */
    EXPECT(ZP_OK, zp_port_post(far[0], "last", 4));
    EXPECT(ZP_OK, zp_port_close(far[0]));
    EXPECT(ZP_OK, zp_set_wait(set, events, 16, &count));
    if (count == 1) EXPECT(ZP_OK, zp_set_wait(set, events + 1, 15, &count));
    HOLDS(events[0].kind == ZP_EVENT_MESSAGE && events[1].kind == ZP_EVENT_CLOSED);
    HOLDS(events[1].status == ZP_CLOSED && events[1].user == &users[0]);
    EXPECT(ZP_BORROWED, zp_set_try_wait(set, events + 2, 1, &count));
    EXPECT(ZP_BORROWED, zp_set_arm(set));
    EXPECT(ZP_FREED, zp_port_post(near[0], "x", 1));
    HOLDS(memcmp(events[0].message.data, "last", 4) == 0);
    EXPECT(ZP_OK, zp_message_release(&events[0].message));
    EXPECT(ZP_EMPTY, zp_set_try_wait(set, events, 1, &count));
    EXPECT(ZP_FREED, zp_set_remove(set, near[0]));

    /* Paused, resumed, removed with what waits. */
    EXPECT(ZP_OK, zp_set_pause(set, near[1]));
    EXPECT(ZP_OK, zp_port_post(far[1], "waits", 5));
    EXPECT(ZP_EMPTY, zp_set_try_wait(set, events, 1, &count));
    EXPECT(ZP_OK, zp_set_resume(set, near[1]));
    EXPECT(ZP_OK, zp_set_fd(set, &fd));
    EXPECT(ZP_READY, zp_set_arm(set));
    EXPECT(ZP_OK, zp_set_remove(set, near[1]));
    EXPECT(ZP_STRANGER, zp_set_remove(set, near[1]));
    EXPECT(ZP_STRANGER, zp_set_pause(set, near[1]));
    EXPECT(ZP_OK, zp_port_recv(near[1], &message));
    EXPECT(ZP_OK, zp_message_release(&message));
    EXPECT(ZP_OK, zp_set_arm(set));
    HOLDS(!is_readable(fd));
    EXPECT(ZP_OK, zp_port_post(far[2], "x", 1));
    HOLDS(is_readable(fd));
    EXPECT(ZP_OK, zp_set_wait(set, events, 16, &count));
    HOLDS(count == 1);
    EXPECT(ZP_OK, zp_message_release(&events[0].message));

    EXPECT(ZP_BAD_ARGUMENT, zp_set_wait(set, events, 0, &count));
    EXPECT(ZP_BAD_ARGUMENT, zp_set_wait(set, NULL, 1, &count));
    EXPECT(ZP_BAD_ARGUMENT, zp_set_wait(set, events, 1, NULL));
    EXPECT(ZP_BAD_ARGUMENT, zp_set_new(NULL));
    EXPECT(ZP_BAD_ARGUMENT, zp_set_fd(set, NULL));
    EXPECT(ZP_BAD_ARGUMENT, zp_set_set_wait(set, 9));
    EXPECT(ZP_OK, zp_set_set_wait(set, ZP_WAIT_SLEEP));
    {
        pthread_t waking;
        HOLDS(pthread_create(&waking, NULL, wake, &set) == 0);
        EXPECT(ZP_OK, zp_set_wait(set, events, 16, &count));
        HOLDS(count == 0);
        gone = set;
        EXPECT(ZP_OK, zp_set_close(set));
        HOLDS(pthread_join(waking, NULL) == 0);
    }
    EXPECT(ZP_FREED, zp_set_wait(gone, events, 1, &count));
    EXPECT(ZP_FREED, zp_set_insert(gone, near[1], NULL));
    EXPECT(ZP_FREED, zp_set_wake(gone));
    EXPECT(ZP_FREED, zp_set_close(gone));
    EXPECT(ZP_FREED, zp_port_close(near[2]));
    gone.id = near[1].id; /* of another kind */
    EXPECT(ZP_BAD_HANDLE, zp_set_insert(gone, near[1], NULL));
    EXPECT(ZP_BAD_HANDLE, zp_set_close(gone));
    EXPECT(ZP_CLOSED, zp_port_recv(far[2], &message));
    EXPECT(ZP_OK, zp_port_close(near[1]));
    for (index = 1; index < PORTS; index++) EXPECT(ZP_OK, zp_port_close(far[index]));
}

/* Who listens to one port, and what it was told. */
struct listener {
    zp_loop loop;
    int messages, closes, removes;
    zp_status reason;
    void (*then)(struct listener *self, zp_port port, zp_message *message);
};

static void on_message(void *user, zp_port port, zp_message *message) {
    struct listener *self = user;
    HOLDS(self->removes == 0);
    self->messages++;
    if (self->then != NULL) self->then(self, port, message);
    HOLDS(self->removes == 0); /* not while a handler runs */
}

static void on_close(void *user, zp_port port, zp_status reason) {
    struct listener *self = user;
    HOLDS(self->removes == 0);
    EXPECT(ZP_FREED, zp_port_close(port));
    self->closes++;
    self->reason = reason;
}

static void removed(void *user) { ((struct listener *)user)->removes++; }

static const zp_handlers HANDLERS = {sizeof(zp_handlers), on_message, on_close, NULL, removed};

static void echo(struct listener *self, zp_port port, zp_message *message) {
    EXPECT(ZP_BUSY, zp_loop_run(self->loop));
    EXPECT(ZP_BUSY, zp_loop_run_ready(self->loop));
    EXPECT(ZP_BUSY, zp_loop_close(self->loop));
    EXPECT(ZP_OK, zp_port_post(port, message->data, message->len));
}

static void close_itself(struct listener *self, zp_port port, zp_message *message) {
    (void)self;
    EXPECT(ZP_OK, zp_port_close(port));
    EXPECT(ZP_FREED, zp_port_post(port, "x", 1));
    EXPECT(ZP_FREED, zp_message_release(message));
}

static void remove_itself(struct listener *self, zp_port port, zp_message *message) {
    (void)message;
    EXPECT(ZP_OK, zp_loop_remove(self->loop, port));
    EXPECT(ZP_STRANGER, zp_loop_remove(self->loop, port));
}

static void release_early(struct listener *self, zp_port port, zp_message *message) {
    (void)port;
    EXPECT(ZP_OK, zp_message_release(message));
    EXPECT(ZP_OK, zp_loop_stop(self->loop));
}

static void pause_itself(struct listener *self, zp_port port, zp_message *message) {
    (void)message;
    EXPECT(ZP_OK, zp_loop_pause(self->loop, port));
}

static void loops(void) {
    struct listener listeners[PORTS] = {{{0}, 0, 0, 0, ZP_OK, NULL}};
    void (*then[PORTS])(struct listener *, zp_port, zp_message *) = {echo, close_itself,
                                                                    remove_itself, release_early};
    zp_handlers handlers = HANDLERS;
    zp_loop loop, none = {0};
    zp_message message;
    size_t index;
    int fd;
    open_all();
    EXPECT(ZP_OK, zp_loop_new(&loop));
    EXPECT(ZP_OK, zp_loop_run(loop)); /* no port is left */
    EXPECT(ZP_FINISHED, zp_loop_run_once(loop));
    for (index = 0; index < PORTS; index++) {
        listeners[index].loop = loop;
        listeners[index].then = then[index];
        EXPECT(ZP_OK, zp_loop_insert(loop, near[index], &HANDLERS, &listeners[index]));
    }
    /* Refused: then the user stays the caller's. */
    EXPECT(ZP_MEMBER, zp_loop_insert(loop, near[0], &HANDLERS, &listeners[0]));
    EXPECT(ZP_OK, zp_port_close(far[0]));
    EXPECT(ZP_BAD_ARGUMENT, zp_loop_insert(loop, near[0], NULL, &listeners[0]));
    handlers.size--;
    EXPECT(ZP_BAD_ARGUMENT, zp_loop_insert(loop, near[0], &handlers, &listeners[0]));
    EXPECT(ZP_BAD_HANDLE, zp_loop_insert(none, near[0], &HANDLERS, &listeners[0]));
    none.id = near[0].id;
    EXPECT(ZP_BAD_HANDLE, zp_loop_run(none));
    EXPECT(ZP_BAD_HANDLE, zp_loop_stop(none));
    EXPECT(ZP_BAD_ARGUMENT, zp_loop_new(NULL));
    EXPECT(ZP_BAD_ARGUMENT, zp_loop_fd(loop, NULL));
    for (index = 0; index < PORTS; index++) HOLDS(listeners[index].removes == 0);

    /* The other end of the first has gone. */
    EXPECT(ZP_OK, zp_loop_run_once(loop));
    HOLDS(listeners[0].closes == 1 && listeners[0].removes == 1);
    HOLDS(listeners[0].reason == ZP_CLOSED && listeners[0].messages == 0);

    for (index = 1; index < 3; index++) {
        EXPECT(ZP_OK, zp_port_post(far[index], "first", 5));
        EXPECT(ZP_OK, zp_port_post(far[index], "second", 6));
    }
    EXPECT(ZP_OK, zp_loop_run_ready(loop));
    HOLDS(listeners[1].messages == 1 && listeners[1].closes == 0 && listeners[1].removes == 1);
    EXPECT(ZP_CLOSED, zp_port_recv(far[1], &message));
    HOLDS(listeners[2].messages == 1 && listeners[2].removes == 1);
    EXPECT(ZP_OK, zp_port_try_recv(near[2], &message)); /* the second one was not lost */
    HOLDS(message.len == 6);
    EXPECT(ZP_OK, zp_message_release(&message));

    EXPECT(ZP_OK, zp_loop_fd(loop, &fd));
    EXPECT(ZP_OK, zp_loop_arm(loop));
    HOLDS(!is_readable(fd));
    EXPECT(ZP_OK, zp_port_post(far[3], "stop", 4));
    HOLDS(is_readable(fd));
    EXPECT(ZP_FINISHED, zp_loop_run_ready(loop));
    HOLDS(listeners[3].messages == 1 && listeners[3].removes == 0);
    EXPECT(ZP_OK, zp_port_post(far[3], "stop", 4));
    EXPECT(ZP_FINISHED, zp_loop_run_timeout(loop, 50000)); /* long before the time is up */
    HOLDS(listeners[3].messages == 2);

    /* Paused from inside: what comes then waits. */
    listeners[3].then = pause_itself;
    EXPECT(ZP_OK, zp_port_post(far[3], "a", 1));
    EXPECT(ZP_OK, zp_port_post(far[3], "b", 1));
    EXPECT(ZP_OK, zp_loop_run_ready(loop));
    EXPECT(ZP_OK, zp_loop_run_timeout(loop, 1));
    HOLDS(listeners[3].messages == 3);
    listeners[3].then = echo;
    EXPECT(ZP_OK, zp_loop_resume(loop, near[3]));
    EXPECT(ZP_OK, zp_loop_run_once(loop));
    HOLDS(listeners[3].messages == 4);
    EXPECT(ZP_OK, zp_port_recv(far[3], &message));
    EXPECT(ZP_OK, zp_message_release(&message));
    EXPECT(ZP_OK, zp_loop_wake(loop));
    EXPECT(ZP_OK, zp_loop_run_once(loop));

    /* Shut down by ourselves: removed, and no close is told. */
    EXPECT(ZP_OK, zp_port_shutdown(near[3]));
    EXPECT(ZP_OK, zp_loop_run(loop));
    HOLDS(listeners[3].closes == 0 && listeners[3].removes == 1);

    /* The rest goes with the loop. */
    listeners[2].removes = 0;
    EXPECT(ZP_OK, zp_loop_insert(loop, near[2], &HANDLERS, &listeners[2]));
    EXPECT(ZP_OK, zp_loop_close(loop));
    HOLDS(listeners[2].closes == 0 && listeners[2].removes == 1);
    EXPECT(ZP_FREED, zp_loop_close(loop));
    EXPECT(ZP_FREED, zp_loop_run(loop));
    EXPECT(ZP_FREED, zp_loop_wake(loop));
    EXPECT(ZP_FREED, zp_port_close(near[2]));
    for (index = 0; index < PORTS; index++) HOLDS(listeners[index].removes == 1);
    for (index = 1; index < PORTS; index++) EXPECT(ZP_OK, zp_port_close(far[index]));
}

/* A port goes by zp_port_close from outside of any handler, and one without on_message waits. */
static void notices(void) {
    struct listener listener = {{0}, 0, 0, 0, ZP_OK, NULL};
    zp_handlers deaf = HANDLERS;
    zp_loop loop;
    zp_message message;
    deaf.on_message = NULL;
    open_all();
    EXPECT(ZP_OK, zp_loop_new(&loop));
    EXPECT(ZP_OK, zp_loop_insert(loop, near[0], &deaf, &listener));
    EXPECT(ZP_OK, zp_port_post(far[0], "waits", 5));
    EXPECT(ZP_OK, zp_loop_resume(loop, near[0]));
    EXPECT(ZP_OK, zp_loop_run_timeout(loop, 1));
    EXPECT(ZP_OK, zp_loop_remove(loop, near[0]));
    HOLDS(listener.removes == 1);
    EXPECT(ZP_OK, zp_port_try_recv(near[0], &message));
    EXPECT(ZP_OK, zp_message_release(&message));
    EXPECT(ZP_OK, zp_loop_insert(loop, near[0], &HANDLERS, &listener));
    listener.removes = 0;
    EXPECT(ZP_OK, zp_port_close(near[0]));
    HOLDS(listener.removes == 1 && listener.closes == 0);
    EXPECT(ZP_OK, zp_loop_close(loop));
    near[0] = far[0];
    close_all(near);
    for (size_t index = 1; index < PORTS; index++) EXPECT(ZP_OK, zp_port_close(far[index]));
}

int main(void) {
    alarm(55); /* whoever is stuck ends before the test that waits for it */
    sets();
    loops();
    notices();
    return 0;
}
