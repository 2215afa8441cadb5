/* Every function with arguments that it has to refuse: a status each time, and nothing is lost. */
#define _DEFAULT_SOURCE

#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "expect.h"

static const zp_port NONE = {0};

static void channel(zp_port *one, zp_port *other, uint32_t flags) {
    zp_port ends[2];
    EXPECT(ZP_OK, make_channel(ends, flags));
    HOLDS(ends[0].id != 0 && ends[1].id != 0 && ends[0].id != ends[1].id);
    *one = ends[0];
    *other = ends[1];
}

static zp_status post(zp_port port, const char *text) {
    return zp_port_post(port, text, strlen(text));
}

static zp_status give(zp_port carrier, const zp_port *ports, size_t count, size_t *bad_index) {
    zp_post post = a_post("take", 4, ports, count);
    return zp_port_try_post_with(carrier, &post, bad_index);
}

/* What is posted on the one end arrives at the other. */
static void works(zp_port one, zp_port other) {
    zp_message message;
    EXPECT(ZP_OK, post(one, "works"));
    EXPECT(ZP_OK, zp_port_recv(other, &message));
    HOLDS(message.len == 5 && memcmp(message.data, "works", 5) == 0);
    HOLDS((uintptr_t)message.data % 16 == 0 && message.tag == 0 && message.port_count == 0);
    EXPECT(ZP_OK, zp_message_release(&message));
}

static void close_all(const zp_port *ports, size_t count) {
    size_t index;
    for (index = 0; index < count; index++) EXPECT(ZP_OK, zp_port_close(ports[index]));
}

static int is_empty(const zp_message *message) {
    return message->data == NULL && message->len == 0 && message->tag == 0 &&
           message->port_count == 0 && message->buffer_count == 0 && message->opaque[0] == 0 && message->opaque[1] == 0;
}

/* A handle that leads nowhere says so wherever it is used. */
static void refused_everywhere(zp_port bad, zp_status expected) {
    zp_port carrier, far, other, list[2];
    zp_message message;
    size_t number = 77;
    channel(&carrier, &far, 0);
    channel(&list[0], &other, 0);
    list[1] = bad;

    EXPECT(expected, post(bad, "x"));
    EXPECT(expected, zp_port_try_post(bad, "x", 1));
    EXPECT(expected, zp_port_post_timeout(bad, "x", 1, 1));
    EXPECT(expected, give(bad, &other, 1, &number));
    HOLDS(number == ZP_NO_INDEX);
    EXPECT(expected, zp_port_max_payload(bad, &number));
    HOLDS(number == 0);
    memset(&message, 0xff, sizeof message);
    EXPECT(expected, zp_port_recv(bad, &message));
    HOLDS(is_empty(&message));
    EXPECT(expected, zp_port_try_recv(bad, &message));
    EXPECT(expected, zp_port_recv_timeout(bad, &message, 1));
    EXPECT(expected, zp_port_peer_state(bad));
    EXPECT(expected, zp_port_shutdown(bad));
    EXPECT(expected, zp_port_close(bad));

    message.opaque[0] = bad.id;
    message.opaque[1] = 1;
    EXPECT(expected, zp_message_release(&message));
    EXPECT(expected, zp_message_take_ports(&message, NULL, 0, &number));
    HOLDS(number == 0);

    EXPECT(expected, give(carrier, list, 2, &number));
    HOLDS(number == 1);
    works(list[0], other);
    works(carrier, far);
    close_all(list, 1);
    EXPECT(ZP_OK, zp_port_close(other));
    EXPECT(ZP_OK, zp_port_close(far));
    EXPECT(ZP_OK, zp_port_close(carrier));
}

/* A handle of another process means nothing here. */
static void of_another_process(void) {
    zp_port foreign, other;
    int ends[2];
    pid_t child;
    HOLDS(pipe(ends) == 0);
    child = fork();
    HOLDS(child >= 0);
    if (child == 0) {
        channel(&foreign, &other, 0);
        _exit(write(ends[1], &foreign, sizeof foreign) == sizeof foreign ? 0 : 1);
    }
    HOLDS(read(ends[0], &foreign, sizeof foreign) == sizeof foreign);
    HOLDS(waitpid(child, NULL, 0) == child);
    HOLDS(foreign.id != 0);
    close(ends[0]);
    close(ends[1]);
    refused_everywhere(foreign, ZP_BAD_HANDLE);
}

static void made_up(void) {
    zp_port port, other, bad;
    size_t bit;
    channel(&port, &other, 0);
    refused_everywhere(NONE, ZP_BAD_HANDLE);
    for (bit = 32; bit < 64; bit++) {
        bad.id = port.id ^ (uint64_t)1 << bit;
        refused_everywhere(bad, ZP_BAD_HANDLE);
    }
    bad.id = 1;
    refused_everywhere(bad, ZP_BAD_HANDLE);
    bad.id = UINT64_MAX;
    refused_everywhere(bad, ZP_BAD_HANDLE);
    works(port, other);
    EXPECT(ZP_OK, zp_port_close(port));
    EXPECT(ZP_OK, zp_port_close(other));
}

static void spent(void) {
    zp_port carrier, receiver, gone, other, taken;
    zp_message message;
    size_t count;
    channel(&carrier, &receiver, 0);
    channel(&gone, &other, 0);
    EXPECT(ZP_OK, zp_port_close(gone));
    refused_everywhere(gone, ZP_FREED);
    EXPECT(ZP_CLOSED, zp_port_recv(other, &message));
    EXPECT(ZP_CLOSED, zp_port_peer_state(other));
    EXPECT(ZP_CLOSED, post(other, "nobody"));
    EXPECT(ZP_OK, zp_port_close(other));

    channel(&gone, &other, 0);
    EXPECT(ZP_OK, post(other, "before"));
    EXPECT(ZP_OK, give(carrier, &gone, 1, &count));
    HOLDS(count == ZP_NO_INDEX);
    refused_everywhere(gone, ZP_TRANSFERRED);
    EXPECT(ZP_OK, zp_port_recv(receiver, &message));
    HOLDS(message.port_count == 1);
    EXPECT(ZP_OK, zp_message_take_ports(&message, &taken, 1, &count));
    HOLDS(count == 1 && message.port_count == 0 && taken.id != gone.id);
    EXPECT(ZP_OK, zp_message_release(&message));
    refused_everywhere(gone, ZP_TRANSFERRED);
    EXPECT(ZP_OK, zp_port_recv(taken, &message));
    HOLDS(message.len == 6 && memcmp(message.data, "before", 6) == 0);
    EXPECT(ZP_OK, zp_message_release(&message));
    works(taken, other);
    works(other, taken);
    EXPECT(ZP_OK, zp_port_close(taken));
    EXPECT(ZP_OK, zp_port_close(other));
    EXPECT(ZP_OK, zp_port_close(carrier));
    EXPECT(ZP_OK, zp_port_close(receiver));
}

static void bad_arguments(void) {
    zp_port port, other, list[3];
    zp_message message, places[2];
    size_t number, numbers[2];
    char *odd = (char *)places + 1;
    channel(&port, &other, 0);

    EXPECT(ZP_BAD_ARGUMENT, zp_channel_new(NULL, NULL));
    memset(list, 0xff, sizeof list);
    EXPECT(ZP_BAD_ARGUMENT, make_channel(list, 3));
    HOLDS(list[0].id == 0 && list[1].id == 0);
    EXPECT(ZP_BAD_ARGUMENT, zp_parent_port(NULL));
    EXPECT(ZP_BAD_ARGUMENT, zp_port_post(port, NULL, 1));
    EXPECT(ZP_BAD_ARGUMENT, zp_port_post(port, "x", SIZE_MAX));
    EXPECT(ZP_BAD_ARGUMENT, zp_port_post_with(port, NULL, &number));
    EXPECT(ZP_BAD_ARGUMENT, give(port, NULL, 1, &number));
    HOLDS(number == ZP_NO_INDEX);
    EXPECT(ZP_BAD_ARGUMENT, give(port, list, 0, (size_t *)((char *)numbers + 1)));
    EXPECT(ZP_BAD_ARGUMENT, give(port, (zp_port *)((char *)list + 1), 1, NULL));
    EXPECT(ZP_TOO_MANY, give(port, list, 2049, NULL));
    EXPECT(ZP_BAD_ARGUMENT, zp_port_max_payload(port, NULL));
    EXPECT(ZP_BAD_ARGUMENT, zp_port_recv(port, NULL));
    EXPECT(ZP_BAD_ARGUMENT, zp_port_try_recv(port, NULL));
    EXPECT(ZP_BAD_ARGUMENT, zp_port_recv_timeout(port, NULL, 1));
    EXPECT(ZP_BAD_ARGUMENT, zp_port_try_recv(port, (zp_message *)odd));
    EXPECT(ZP_BAD_ARGUMENT, zp_message_release(NULL));
    EXPECT(ZP_BAD_ARGUMENT, zp_message_release((zp_message *)odd));
    EXPECT(ZP_BAD_ARGUMENT, zp_message_take_ports(NULL, list, 3, &number));
    memset(&message, 0, sizeof message);
    EXPECT(ZP_BAD_HANDLE, zp_message_release(&message));
    EXPECT(ZP_BAD_ARGUMENT, zp_message_take_ports(&message, list, 3, NULL));

    EXPECT(ZP_OK, zp_port_max_payload(port, &number));
    HOLDS(number == (size_t)4 << 30);
    {
        /* Addresses only: nobody reads so much. */
        int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
        size_t len = (size_t)32 << 20, posted = 0;
        char *large = mmap(NULL, number + 1, PROT_READ, flags, -1, 0);
        HOLDS(large != MAP_FAILED);
        EXPECT(ZP_TOO_LARGE, zp_port_post(port, large, number + 1));
        EXPECT(ZP_TOO_LARGE, zp_port_try_post(port, large, number + 1));
        EXPECT(ZP_OK, zp_port_post(port, large, len));
        /* As much waits as may: 256 MiB. */
        while (zp_port_try_post(port, large, len) == ZP_OK) posted++;
        HOLDS(posted > 0 && posted < 8);
        EXPECT(ZP_FULL, zp_port_try_post(port, large, len));
        EXPECT(ZP_FULL, zp_port_post_timeout(port, large, len, 1));
        HOLDS(munmap(large, number + 1) == 0);
    }
    while (zp_port_try_recv(other, &message) == ZP_OK) EXPECT(ZP_OK, zp_message_release(&message));
    EXPECT(ZP_EMPTY, zp_port_try_recv(other, &message));
    EXPECT(ZP_EMPTY, zp_port_recv_timeout(other, &message, 1));
    HOLDS(is_empty(&message));

    /* Nothing at all is a message, too. */
    EXPECT(ZP_OK, zp_port_post(port, NULL, 0));
    EXPECT(ZP_OK, zp_port_recv(other, &message));
    HOLDS(message.len == 0 && message.data != NULL);
    EXPECT(ZP_OK, zp_message_take_ports(&message, NULL, 0, &number));
    HOLDS(number == 0);
    EXPECT(ZP_OK, zp_message_release(&message));
    works(port, other);
    EXPECT(ZP_OK, zp_port_close(port));
    EXPECT(ZP_OK, zp_port_close(other));

    HOLDS(strcmp(zp_status_text((zp_status)9999), "unknown status") == 0);
    HOLDS(strcmp(zp_status_text(ZP_OK), "done") == 0);
    HOLDS(zp_version() == ZP_VERSION);
}

/* A list with one bad entry: it is named, and the others stay where they are. */
static void bad_lists(void) {
    zp_port carrier, far, stranger, from_stranger, ended, ended_other, list[3], others[3];
    zp_message message;
    size_t index, number;
    channel(&carrier, &far, 0);
    channel(&stranger, &from_stranger, ZP_TRUST_UNTRUSTED);
    channel(&ended, &ended_other, 0);
    for (index = 0; index < 3; index++) channel(&list[index], &others[index], 0);
    EXPECT(ZP_OK, zp_port_shutdown(ended));
    EXPECT(ZP_OK, post(others[1], "held"));
    EXPECT(ZP_OK, zp_port_recv(list[1], &message));

    {
        zp_port twice[3], itself[3], other_end[3], at_end[3];
        memcpy(twice, list, sizeof list);
        memcpy(itself, list, sizeof list);
        memcpy(other_end, list, sizeof list);
        memcpy(at_end, list, sizeof list);
        twice[2] = twice[0];
        itself[2] = carrier;
        other_end[1] = far;
        at_end[1] = ended;
        EXPECT(ZP_BORROWED, give(carrier, list, 3, &number));
        HOLDS(number == 1);
        EXPECT(ZP_DUPLICATE, give(carrier, twice, 3, &number));
        HOLDS(number == 2);
        EXPECT(ZP_CARRIER, give(carrier, itself, 3, &number));
        HOLDS(number == 2);
        EXPECT(ZP_OTHER_END, give(carrier, other_end, 3, &number));
        HOLDS(number == 1);
        EXPECT(ZP_ENDED, give(carrier, at_end, 3, &number));
        HOLDS(number == 1);
        EXPECT(ZP_ENDED, give(carrier, at_end, 3, NULL));
    }
    HOLDS(message.len == 4 && memcmp(message.data, "held", 4) == 0);
    EXPECT(ZP_OK, zp_message_release(&message));
    EXPECT(ZP_TRUSTED, give(stranger, list, 3, &number));
    HOLDS(number == 0);
    EXPECT(ZP_OK, zp_port_close(far));
    EXPECT(ZP_CLOSED, give(carrier, list, 3, &number));
    HOLDS(number == ZP_NO_INDEX);

    for (index = 0; index < 3; index++) {
        works(list[index], others[index]);
        works(others[index], list[index]);
    }
    EXPECT(ZP_EMPTY, zp_port_try_recv(from_stranger, &message));
    close_all(list, 3);
    close_all(others, 3);
    EXPECT(ZP_OK, zp_port_close(carrier));
    EXPECT(ZP_OK, zp_port_close(stranger));
    EXPECT(ZP_OK, zp_port_close(from_stranger));
    EXPECT(ZP_OK, zp_port_close(ended));
    EXPECT(ZP_OK, zp_port_close(ended_other));
}

/* What a message holds is held until it is released, and a message is released once. */
static void messages(uint32_t flags) {
    zp_port port, other, three[3], ends[3], taken[3];
    zp_message message, copy;
    size_t index, count;
    channel(&port, &other, flags);
    for (index = 0; index < 3; index++) channel(&three[index], &ends[index], flags);
    EXPECT(ZP_OK, give(port, three, 3, NULL));
    EXPECT(ZP_OK, zp_port_recv(other, &message));
    HOLDS(message.port_count == 3);

    EXPECT(ZP_TOO_SMALL, zp_message_take_ports(&message, NULL, 0, &count));
    HOLDS(count == 3);
    memset(taken, 0, sizeof taken);
    EXPECT(ZP_TOO_SMALL, zp_message_take_ports(&message, taken, 2, &count));
    HOLDS(count == 3 && taken[0].id == 0 && taken[1].id == 0 && message.port_count == 3);
    EXPECT(ZP_OK, zp_message_take_ports(&message, taken, 3, &count));
    HOLDS(count == 3 && message.port_count == 0);
    EXPECT(ZP_OK, zp_message_take_ports(&message, taken, 0, &count));
    HOLDS(count == 0);
    for (index = 0; index < 3; index++) works(taken[index], ends[index]);

    EXPECT(ZP_BORROWED, zp_port_close(other));
    HOLDS(message.len == 4 && memcmp(message.data, "take", 4) == 0);
    copy = message;
    copy.opaque[1]++;
    EXPECT(ZP_BAD_HANDLE, zp_message_release(&copy));
    copy = message;
    EXPECT(ZP_OK, zp_message_release(&message));
    HOLDS(is_empty(&message));
    EXPECT(ZP_FREED, zp_message_release(&copy));
    EXPECT(ZP_FREED, zp_message_take_ports(&copy, taken, 3, &count));
    EXPECT(ZP_BAD_HANDLE, zp_message_release(&message));
    close_all(taken, 3);
    close_all(ends, 3);

    /* Ports that nobody takes are lost. */
    channel(&three[0], &ends[0], flags);
    EXPECT(ZP_OK, give(port, three, 1, NULL));
    EXPECT(ZP_OK, zp_port_recv(other, &message));
    EXPECT(ZP_OK, zp_port_peer_state(ends[0]));
    EXPECT(ZP_OK, zp_message_release(&message));
    EXPECT(ZP_LOST, zp_port_recv(ends[0], &message));
    EXPECT(ZP_OK, zp_port_close(ends[0]));

    /* A shutdown takes no message away. */
    EXPECT(ZP_OK, post(port, "held"));
    EXPECT(ZP_OK, zp_port_recv(other, &message));
    EXPECT(ZP_OK, zp_port_shutdown(other));
    EXPECT(ZP_OK, zp_port_shutdown(other));
    EXPECT(ZP_CLOSED, zp_port_recv(other, &copy));
    EXPECT(ZP_CLOSED, post(other, "x"));
    EXPECT(ZP_CLOSED, zp_port_peer_state(other));
    HOLDS(message.len == 4 && memcmp(message.data, "held", 4) == 0);
    EXPECT(ZP_BORROWED, zp_port_close(other));
    EXPECT(ZP_OK, zp_message_release(&message));
    EXPECT(ZP_OK, zp_port_close(other));
    EXPECT(ZP_CLOSED, zp_port_recv(port, &message));
    EXPECT(ZP_OK, zp_port_close(port));
}

/* Whether a descriptor is the memory of a channel. */
static int is_segment(int fd) {
    char path[32], name[64] = {0};
    sprintf(path, "/proc/self/fd/%d", fd);
    return readlink(path, name, sizeof name - 1) > 0 && strstr(name, "memfd:zeroport") != NULL;
}

/* A channel that nobody can make a port of any more: its memory does not begin as it should. An untrusted
   one has memory that no other channel had before. */
static void spoilt_channel(zp_port *one, zp_port *other) {
    enum { MOST = 100 };
    char before[MOST];
    int fd, spoilt = 0;
    for (fd = 0; fd < MOST; fd++) before[fd] = (char)is_segment(fd);
    channel(one, other, ZP_TRUST_UNTRUSTED);
    for (fd = 0; fd < MOST; fd++) {
        if (is_segment(fd) && !before[fd]) {
            HOLDS(pwrite(fd, "spoilt!!", 8, 0) == 8);
            spoilt++;
        }
    }
    HOLDS(spoilt == 1);
}

/* A bad port among good ones leaves its place empty. */
static void a_port_that_is_none(void) {
    zp_port port, other, three[3], ends[3], taken[3];
    zp_message message;
    size_t count;
    channel(&port, &other, 0);
    channel(&three[0], &ends[0], 0);
    spoilt_channel(&three[1], &ends[1]);
    channel(&three[2], &ends[2], 0);
    EXPECT(ZP_OK, give(port, three, 3, NULL));
    EXPECT(ZP_OK, zp_port_recv(other, &message));
    memset(taken, 0xff, sizeof taken);
    EXPECT(ZP_REFUSED, zp_message_take_ports(&message, taken, 3, &count));
    HOLDS(count == 3 && taken[1].id == 0 && message.port_count == 0);
    works(taken[0], ends[0]);
    works(ends[2], taken[2]);
    EXPECT(ZP_OK, zp_message_release(&message));
    EXPECT(ZP_LOST, zp_port_recv(ends[1], &message));
    EXPECT(ZP_OK, zp_port_close(taken[0]));
    EXPECT(ZP_OK, zp_port_close(taken[2]));
    close_all(ends, 3);
    EXPECT(ZP_OK, zp_port_close(port));
    EXPECT(ZP_OK, zp_port_close(other));
}

static void in_a_fork(void) {
    zp_port port, other, held, far;
    zp_message message, ignored;
    size_t count;
    pid_t child;
    int status;
    channel(&port, &other, 0);
    channel(&held, &far, 0);
    EXPECT(ZP_OK, give(port, &held, 1, NULL));
    EXPECT(ZP_OK, zp_port_recv(other, &message));
    child = fork();
    HOLDS(child >= 0);
    if (child == 0) {
        EXPECT(ZP_DETACHED, post(port, "x"));
        EXPECT(ZP_DETACHED, zp_port_recv(other, &ignored));
        EXPECT(ZP_DETACHED, zp_message_take_ports(&message, &held, 1, &count));
        EXPECT(ZP_DETACHED, give(port, &far, 1, NULL));
        EXPECT(ZP_OK, zp_message_release(&message));
        EXPECT(ZP_OK, zp_port_close(other));
        _exit(7);
    }
    HOLDS(waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 7);
    EXPECT(ZP_OK, zp_message_take_ports(&message, &held, 1, &count));
    works(held, far);
    EXPECT(ZP_OK, zp_message_release(&message));
    works(port, other);
    EXPECT(ZP_OK, zp_port_close(held));
    EXPECT(ZP_OK, zp_port_close(far));
    EXPECT(ZP_OK, zp_port_close(port));
    EXPECT(ZP_OK, zp_port_close(other));
}

static void no_parent(void) {
    zp_port port = {77};
    HOLDS(unsetenv("ZEROPORT_PARENT") == 0);
    EXPECT(ZP_NO_PARENT, zp_parent_port(&port));
    HOLDS(port.id == 0);
    HOLDS(setenv("ZEROPORT_PARENT", "100000:1", 1) == 0);
    EXPECT(ZP_REFUSED, zp_parent_port(&port));
    HOLDS(setenv("ZEROPORT_PARENT", "nonsense", 1) == 0);
    EXPECT(ZP_REFUSED, zp_parent_port(&port));
}

int main(void) {
    alarm(55); /* whoever is stuck ends before the test that waits for it */
    of_another_process(); /* first: the child draws its own numbers */
    made_up();
    spent();
    bad_arguments();
    bad_lists();
    messages(0);
    messages(ZP_TRUST_UNTRUSTED);
    a_port_that_is_none();
    in_a_fork();
    no_parent();
    return 0;
}
