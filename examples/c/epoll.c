/*
 * A port in a plain epoll loop, beside a timer. At each tick the program asks its child, which is the
 * same program once more, for the square of a number; the answers come when they come.
 */
#define _GNU_SOURCE

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/timerfd.h>
#include <sys/wait.h>
#include <unistd.h>
#include <zeroport.h>

enum { QUESTIONS = 10, TICK_NS = 2 * 1000 * 1000 };

/* ---- The child ---- */

/* Gives the square of each number, and, asked for nothing, how many those were. */
static zp_status answer(zp_port parent) {
    zp_message message;
    zp_status status;
    uint64_t answered = 0;

    while ((status = zp_port_recv(parent, &message)) == ZP_OK) {
        uint64_t number = answered;
        if (message.len == sizeof number) {
            memcpy(&number, message.data, sizeof number);
            number *= number;
            answered++;
        }
        zp_message_release(&message);
        status = zp_port_post(parent, &number, sizeof number);
        if (status != ZP_OK) break;
    }
    return status == ZP_CLOSED ? ZP_OK : status;
}

/* ---- The parent ---- */

struct asker {
    zp_port child;
    int epoll;
    int timer;
    uint64_t asked;
    uint64_t answered;
    uint64_t correctly;
    uint64_t child_answered; /* as it says itself */
};

static zp_status watch(struct asker *asker, int fd) {
    struct epoll_event event = {0};
    event.events = EPOLLIN;
    event.data.fd = fd;
    return epoll_ctl(asker->epoll, EPOLL_CTL_ADD, fd, &event) == 0 ? ZP_OK : ZP_SYSTEM;
}

static zp_status start(struct asker *asker) {
    const struct itimerspec ticks = {{0, TICK_NS}, {0, TICK_NS}};
    zp_status status;
    int fd;

    asker->epoll = epoll_create1(EPOLL_CLOEXEC);
    asker->timer = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
    if (asker->epoll < 0 || asker->timer < 0) return ZP_SYSTEM;
    if (timerfd_settime(asker->timer, 0, &ticks, NULL) != 0) return ZP_SYSTEM;
    status = watch(asker, asker->timer);
    if (status == ZP_OK) status = zp_port_fd(asker->child, &fd);
    if (status == ZP_OK) status = watch(asker, fd);
    return status;
}

static zp_status tick(struct asker *asker) {
    uint64_t ticks;
    if (read(asker->timer, &ticks, sizeof ticks) != sizeof ticks) return ZP_OK;
    if (asker->asked == QUESTIONS) return ZP_OK;
    asker->asked++;
    return zp_port_post(asker->child, &asker->asked, sizeof asker->asked);
}

/* Answers are numbers; whatever else comes is 0. */
static uint64_t number_of(const zp_message *message) {
    uint64_t number = 0;
    if (message->len == sizeof number) memcpy(&number, message->data, sizeof number);
    return number;
}

static void take_answer(struct asker *asker, uint64_t square) {
    uint64_t number = ++asker->answered;
    if (square == number * number) asker->correctly++;
    printf("%" PRIu64 " squared is %" PRIu64 "\n", number, square);
}

/*
 * Receives what there is, then arms the port, so that its descriptor tells of what comes next. If
 * something has come in between, the port is not armed: once more.
 */
static zp_status receive_and_arm(struct asker *asker) {
    zp_message message;
    zp_status status;

    do {
        while ((status = zp_port_try_recv(asker->child, &message)) == ZP_OK) {
            take_answer(asker, number_of(&message));
            zp_message_release(&message);
        }
        if (status != ZP_EMPTY) return status;
        status = zp_port_arm(asker->child);
    } while (status == ZP_READY);
    return status;
}

static zp_status run(struct asker *asker) {
    zp_status status = receive_and_arm(asker);
    struct epoll_event events[2];
    int index, count;

    while (status == ZP_OK && asker->answered < QUESTIONS) {
        count = epoll_wait(asker->epoll, events, 2, -1);
        if (count < 0 && errno != EINTR) return ZP_SYSTEM;
        for (index = 0; index < count && status == ZP_OK; index++) {
            if (events[index].data.fd == asker->timer)
                status = tick(asker);
            else
                status = receive_and_arm(asker);
        }
    }
    return status;
}

/* The end of polling: the port is disarmed, for nobody will hear of it, and used as any other. */
static zp_status say_goodbye(struct asker *asker) {
    zp_message message;
    zp_status status = zp_port_disarm(asker->child);

    if (status == ZP_OK) status = zp_port_post(asker->child, NULL, 0);
    if (status == ZP_OK) status = zp_port_recv(asker->child, &message);
    if (status == ZP_OK) {
        asker->child_answered = number_of(&message);
        zp_message_release(&message);
    }
    return status;
}

static zp_status ask(struct asker *asker) {
    zp_status status = start(asker);
    if (status == ZP_OK) status = run(asker);
    if (status == ZP_OK) status = say_goodbye(asker);

    zp_port_close(asker->child); /* with its descriptor, which by that leaves the epoll */
    if (asker->timer >= 0) close(asker->timer);
    if (asker->epoll >= 0) close(asker->epoll);
    return status;
}

/* Whether all went as it should. */
static int parent(char *program) {
    struct asker asker = {{0}, -1, -1, 0, 0, 0, 0};
    char *argv[2] = {NULL, NULL};
    int exit_status = -1;
    zp_status status;
    pid_t pid;

    argv[0] = program;
    status = zp_spawn(argv, NULL, NULL, &asker.child, &pid);
    if (status == ZP_OK) {
        status = ask(&asker);
        while (waitpid(pid, &exit_status, 0) < 0 && errno == EINTR) continue;
    }
    if (status != ZP_OK) fprintf(stderr, "epoll: %s\n", zp_status_text(status));
    return status == ZP_OK && exit_status == 0 && asker.correctly == QUESTIONS &&
           asker.child_answered == QUESTIONS;
}

int main(int argc, char **argv) {
    zp_port port;
    zp_status status = zp_parent_port(&port);

    if (status == ZP_NO_PARENT && argc > 0) {
        int ok = parent(argv[0]);
        puts(ok ? "epoll: ok" : "epoll: failed");
        return !ok;
    }
    if (status == ZP_OK) status = answer(port);
    zp_port_close(port);
    if (status != ZP_OK) fprintf(stderr, "epoll, the child: %s\n", zp_status_text(status));
    return status != ZP_OK;
}
