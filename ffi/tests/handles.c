/*
 * Every function with every kind of bad handle, with pointers that are null or misaligned, and in a forked child: the
 * status that the header promises, outputs filled as it promises, and nothing changed. "list" prints the functions.
 */
#define _DEFAULT_SOURCE

#include <sys/wait.h>
#include <unistd.h>

#include "rows.h"

static tried good[KINDS], freed[KINDS], given[KINDS];
static zp_port far_of_good, message_far, loan_far, loaned, member_far;
static zp_message held;
static zp_loan loan;
static char address[64];
/* All are told, so that a run shows the whole of what has changed. */
static int failures;

static void works(zp_port one, zp_port other) {
    zp_message message;
    EXPECT(ZP_OK, zp_port_post(one, "works", 5));
    EXPECT(ZP_OK, zp_port_try_recv(other, &message));
    HOLDS(message.len == 5 && memcmp(message.data, "works", 5) == 0);
    EXPECT(ZP_OK, zp_message_release(&message));
    EXPECT(ZP_EMPTY, zp_port_try_recv(other, &message));
}

/* A caller who has hung up is one nevertheless, until that is found out. */
static zp_caller a_caller(zp_server server) {
    zp_port port;
    zp_caller caller;
    EXPECT(ZP_TIMED_OUT, zp_connect_timeout(address, NULL, &port, NULL, 1));
    EXPECT(ZP_OK, zp_server_try_accept(server, &caller, NULL));
    return caller;
}

static tried a_message(zp_port from, zp_port to) {
    tried it;
    EXPECT(ZP_OK, zp_port_post(from, "held", 4));
    EXPECT(ZP_OK, zp_port_try_recv(to, &held));
    it.id = held.opaque[0];
    it.number = held.opaque[1];
    return it;
}

static tried a_loan(zp_port port, zp_loan *loan) {
    tried it;
    EXPECT(ZP_OK, zp_port_reserve(port, 5, loan));
    it.id = loan->opaque[0];
    it.number = loan->opaque[1];
    return it;
}

/* What is there for the whole test. */
static void make_living(void) {
    zp_port port, holder;
    zp_buffer buffer;
    zp_server server;
    open_pair(&living.port, &living.far);
    open_pair(&living.other, &living.other_far);
    open_pair(&living.member, &member_far);
    split_one();
    EXPECT(ZP_OK, zp_set_new(&living.set));
    EXPECT(ZP_OK, zp_set_insert(living.set, living.member, NULL));
    EXPECT(ZP_OK, zp_loop_new(&living.loop));
    open_pair(&port, &far_of_good);
    EXPECT(ZP_OK, zp_buffer_new(10, &buffer));
    EXPECT(ZP_OK, zp_server_bind(address, &server));
    open_pair(&message_far, &holder);
    open_pair(&loaned, &loan_far);
    good[PORT].id = port.id;
    good[BUFFER].id = buffer.id;
    good[SERVER].id = server.id;
    good[CALLER].id = a_caller(server).id;
    good[SET].id = living.set.id;
    good[LOOP].id = living.loop.id;
    good[MESSAGE] = a_message(message_far, holder);
    good[LOAN] = a_loan(loaned, &loan);
}

/* One of each kind that was closed, freed or released, and what can be given away, given away. */
static void make_spent(void) {
    zp_port ends[2], one, other;
    zp_buffer buffers[2];
    zp_server server;
    zp_set set;
    zp_loop loop;
    zp_message message;
    zp_loan cancelled;
    zp_item items[2];
    zp_post post = a_post("gone", 4, items, 2);
    zp_message kept = held;
    open_pair(&ends[0], &ends[1]);
    open_pair(&one, &other);
    EXPECT(ZP_OK, zp_buffer_new(1, &buffers[0]));
    EXPECT(ZP_OK, zp_buffer_new(1, &buffers[1]));
    EXPECT(ZP_OK, zp_server_bind("@zeroport-handles-freed", &server));
    EXPECT(ZP_OK, zp_set_new(&set));
    EXPECT(ZP_OK, zp_loop_new(&loop));
    freed[MESSAGE] = a_message(one, other);
    message = held;
    held = kept;
    EXPECT(ZP_OK, zp_message_release(&message));
    freed[LOAN] = a_loan(one, &cancelled);
    EXPECT(ZP_OK, zp_loan_cancel(&cancelled));
    items[0].id = given[PORT].id = ends[0].id;
    items[1].id = given[BUFFER].id = buffers[0].id;
    EXPECT(ZP_OK, zp_port_post_with(one, &post, NULL));
    EXPECT(ZP_OK, zp_port_recv(other, &message));
    EXPECT(ZP_OK, zp_message_release(&message));
    freed[PORT].id = ends[1].id;
    freed[BUFFER].id = buffers[1].id;
    freed[SERVER].id = server.id;
    freed[CALLER].id = a_caller(as_server(good[SERVER])).id;
    freed[SET].id = set.id;
    freed[LOOP].id = loop.id;
    EXPECT(ZP_OK, zp_port_close(one));
    EXPECT(ZP_OK, zp_port_close(other));
    EXPECT(ZP_OK, zp_port_close(ends[1]));
    EXPECT(ZP_OK, zp_buffer_free(buffers[1]));
    EXPECT(ZP_OK, zp_server_close(server));
    EXPECT(ZP_OK, zp_caller_refuse(as_caller(freed[CALLER])));
    EXPECT(ZP_OK, zp_set_close(set));
    EXPECT(ZP_OK, zp_loop_close(loop));
}

/* A member whose end was told, and one whose set was closed. */
static void make_left(tried left[2]) {
    zp_port one, other, second, second_other;
    zp_set set;
    zp_event event;
    size_t count;
    open_pair(&one, &other);
    open_pair(&second, &second_other);
    EXPECT(ZP_OK, zp_set_new(&set));
    EXPECT(ZP_OK, zp_set_insert(set, one, NULL));
    EXPECT(ZP_OK, zp_set_insert(set, second, NULL));
    EXPECT(ZP_OK, zp_port_close(other));
    EXPECT(ZP_OK, zp_set_try_wait(set, &event, 1, &count));
    HOLDS(count == 1 && event.kind == ZP_EVENT_CLOSED && event.port.id == one.id);
    EXPECT(ZP_OK, zp_set_close(set));
    EXPECT(ZP_OK, zp_port_close(second_other));
    left[0].id = one.id;
    left[1].id = second.id;
    left[0].number = left[1].number = 1;
}

/* All that was made is as it was. */
static void all_work(void) {
    zp_event event;
    zp_caller caller;
    zp_port port;
    zp_info info;
    const void *bytes;
    size_t count;
    works(living.port, living.far);
    works(living.far, living.port);
    works(living.other, living.other_far);
    works(as_port(good[PORT]), far_of_good);
    works(far_of_good, as_port(good[PORT]));
    EXPECT(ZP_OK, zp_port_info(living.member, &info));
    HOLDS(info.is_member);
    EXPECT(ZP_OK, zp_port_info(as_port(good[PORT]), &info));
    HOLDS(!info.is_member);
    EXPECT(ZP_EMPTY, zp_set_try_wait(living.set, &event, 1, &count));
    EXPECT(ZP_FINISHED, zp_loop_run_ready(living.loop)); /* nobody is in it */
    EXPECT(ZP_OK, zp_buffer_read(as_buffer(good[BUFFER]), &bytes, &count));
    HOLDS(count == 10 && *(const char *)bytes == 0);
    EXPECT(ZP_EMPTY, zp_server_try_accept(as_server(good[SERVER]), &caller, NULL));
    EXPECT(ZP_TIMED_OUT, zp_connect_timeout(address, NULL, &port, NULL, 0));
    EXPECT(ZP_OK, zp_server_try_accept(as_server(good[SERVER]), &caller, NULL));
    EXPECT(ZP_OK, zp_caller_refuse(caller));
    HOLDS(memcmp(held.data, "held", 4) == 0);
    EXPECT(ZP_BORROWED, zp_port_close(as_port(good[MESSAGE])));
    EXPECT(ZP_LOANED, zp_port_try_post(loaned, "x", 1));
    EXPECT(ZP_LOANED, zp_port_close(loaned));
}

static void spoil(void) { memset(&outs, SPOILT, sizeof outs); }

/* What the outputs are after a failure. */
static struct outs after_failure(unsigned outputs, size_t index) {
    struct outs expected;
    memset(&expected, SPOILT, sizeof expected);
    if (outputs & OUT_PORTS) memset(expected.ports, 0, sizeof expected.ports);
    if (outputs & OUT_HANDLE) expected.handle = 0;
    if (outputs & OUT_NAMED) memset(&expected.named, 0, sizeof expected.named);
    if (outputs & OUT_MESSAGE) memset(&expected.message, 0, sizeof expected.message);
    if (outputs & OUT_LOAN) memset(&expected.loan, 0, sizeof expected.loan);
    if (outputs & OUT_INFO) memset(&expected.info, 0, sizeof expected.info);
    if (outputs & OUT_CREDENTIALS) {
        /* Nobody: 0 would be root. */
        memset(&expected.credentials, 0xff, sizeof expected.credentials);
        expected.credentials.pid = 0;
    }
    if (outputs & OUT_DATA) expected.data = NULL;
    if (outputs & OUT_LEN) expected.len = 0;
    if (outputs & OUT_INDEX) expected.index = index;
    if (outputs & OUT_FD) expected.fd = -1;
    if (outputs & OUT_PID) expected.pid = 0;
    if (outputs & OUT_TICKET) memset(expected.ticket, 0, sizeof expected.ticket);
    return expected;
}

static int is_filled(unsigned outputs, size_t index) {
    struct outs expected = after_failure(outputs, index);
    return memcmp(&outs, &expected, sizeof outs) == 0;
}

static void refused(const row *row, tried it, zp_status expected, const char *what, size_t index) {
    zp_status found;
    spoil();
    found = row->call(it);
    if (found != expected || !is_filled(row->outputs, index)) {
        fprintf(stderr, "%s with %s (%llx, %llx): %s, not: %s; outputs %s\n", row->name, what,
                (unsigned long long)it.id, (unsigned long long)it.number, zp_status_text(found),
                zp_status_text(expected), is_filled(row->outputs, index) ? "filled" : "not filled");
        failures++;
    }
    /* What a call was given is as it was. */
    if (row->kind == MESSAGE) {
        HOLDS(given_message.opaque[0] == it.id && given_message.opaque[1] == it.number);
    }
    if (row->kind == LOAN) {
        HOLDS(given_loan.opaque[0] == it.id && given_loan.opaque[1] == it.number);
    }
}

static void made_up_handles(const row *row, size_t index) {
    static const int bits[] = {0, 8, 20, 27, 28, 29, 31, 32, 33, 47, 63};
    static const tried none[] = {{0, 0}, {0, 1}, {1, 1}, {UINT64_MAX, UINT64_MAX}, {UINT64_MAX - 1, 0}};
    tried it;
    size_t count;
    for (count = 0; count < COUNT(none); count++) refused(row, none[count], ZP_BAD_HANDLE, "a made-up handle", index);
    for (count = 4; count < COUNT(bits); count++) {
        it = good[row->kind];
        it.id ^= (uint64_t)1 << bits[count];
        refused(row, it, ZP_BAD_HANDLE, "another generation or kind", index);
    }
    /* A place far away that nobody ever had. */
    it = good[row->kind];
    it.id ^= (uint64_t)0xfffff << 8;
    refused(row, it, ZP_BAD_HANDLE, "a place that is none", index);
    if (row->kind != MESSAGE && row->kind != LOAN) return;
    for (count = 0; count < 64; count++) {
        it = good[row->kind];
        it.number ^= (uint64_t)1 << count;
        if (row->kind == LOAN && it.number == 0) continue;
        refused(row, it, ZP_BAD_HANDLE, "a number that is none", index);
    }
    it.number = 0;
    refused(row, it, ZP_BAD_HANDLE, "no number", index);
}

/* Handles that are alive, and something else. */
static void handles_of_other_kinds(const row *row, int is_item, size_t index) {
    int kind;
    for (kind = PORT; kind < KINDS; kind++) {
        if (kind == (int)row->kind || (is_item && kind == BUFFER)) continue;
        /* What names a message or loan begins with a port. */
        if (row->kind == PORT && (kind == MESSAGE || kind == LOAN)) continue;
        refused(row, good[kind], ZP_BAD_HANDLE, "a handle of another kind", index);
    }
}

static void bad_handles(const row *row, int is_item, const tried left[2]) {
    size_t index = is_item ? 0 : ZP_NO_INDEX;
    made_up_handles(row, index);
    handles_of_other_kinds(row, is_item, index);
    refused(row, freed[row->kind], ZP_FREED, "what was freed", index);
    if (given[row->kind].id != 0) refused(row, given[row->kind], ZP_TRANSFERRED, "what was given away", index);
    if (is_item) refused(row, given[BUFFER], ZP_TRANSFERRED, "a buffer that was given away", index);
    if (is_item) refused(row, freed[BUFFER], ZP_FREED, "a buffer that was freed", index);
    if (row->kind == PORT || row->kind == MESSAGE || row->kind == LOAN) {
        refused(row, left[0], ZP_FREED, "a port whose end its set has told", index);
        refused(row, left[1], ZP_FREED, "a port that went with its set", index);
        refused(row, given[PORT], ZP_TRANSFERRED, "what came on a port that was given away", index);
    }
}

/* Of what a call was to fill, at most what lies behind the bad pointer is as it was. */
static void expect_all_but_one(const row *row, size_t index, const char *how, int number) {
    unsigned output;
    if (is_filled(row->outputs, index)) return;
    for (output = 1; output <= OUT_NAMED; output <<= 1) {
        if ((row->outputs & output) && is_filled(row->outputs & ~output, index)) return;
    }
    fprintf(stderr, "%s, pointer %d %s: outputs are not filled\n", row->name, number, how);
    failures++;
}

static void bad_pointers(const row *row) {
    static const char *const HOW[] = {"null", "misaligned"};
    for (is_odd = 0; is_odd < 2; is_odd++) {
        for (bad_pointer = 0; bad_pointer < MOST_POINTERS; bad_pointer++) {
            zp_status found;
            if (!((is_odd ? row->aligned : row->needed) >> bad_pointer & 1)) continue;
            spoil();
            found = row->call(good[row->kind]);
            if (found != ZP_BAD_ARGUMENT) {
                fprintf(stderr, "%s, pointer %d %s: %s\n", row->name, bad_pointer, HOW[is_odd],
                        zp_status_text(found));
                failures++;
            }
            expect_all_but_one(row, ZP_NO_INDEX, HOW[is_odd], bad_pointer);
        }
    }
    bad_pointer = NO_POINTER;
}

/* What gives back what a process has is good in its copy, too. */
static int gives_back(const row *row) {
    static const char *const NAMES[] = {"loan_cancel", "buffer_free", "message_release", "messages_release",
                                        "port_close", "caller_refuse", "server_close", "set_close", "loop_close"};
    size_t index;
    for (index = 0; index < COUNT(NAMES); index++) {
        if (strcmp(NAMES[index], row->name) == 0) return 1;
    }
    return 0;
}

/* In a child of its own each, where nothing else was tried. */
static void in_a_fork(const row *row, int is_item) {
    int status;
    pid_t child = fork();
    HOLDS(child >= 0);
    if (child == 0) {
        tried it = good[row->kind];
        failures = 0;
        if (is_item) open_pair(&living.port, &living.far); /* its own */
        if (strcmp(row->name, "set_remove_of") == 0 || strcmp(row->name, "set_pause_of") == 0 ||
            strcmp(row->name, "set_resume_of") == 0) {
            it.id = living.member.id;
        }
        if (gives_back(row)) {
            EXPECT(ZP_OK, row->call(it));
            EXPECT(ZP_FREED, row->call(it));
        } else {
            refused(row, it, ZP_DETACHED, "a handle of its parent", is_item ? 0 : ZP_NO_INDEX);
        }
        _exit(failures == 0 ? 7 : 1);
    }
    HOLDS(waitpid(child, &status, 0) == child);
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 7) {
        fprintf(stderr, "%s in a forked child: %x\n", row->name, (unsigned)status);
        failures++;
    }
    all_work();
}

/* Whatever was tried, all can be given back. */
static void close_all(void) {
    zp_port ports[] = {living.port, living.far, living.other, living.other_far, far_of_good, message_far,
                       loan_far, loaned, member_far, living.halves[0], living.halves[1], living.far_of_halves};
    size_t index;
    EXPECT(ZP_OK, zp_message_release(&held));
    EXPECT(ZP_OK, zp_loan_cancel(&loan));
    EXPECT(ZP_OK, zp_set_close(living.set));
    EXPECT(ZP_OK, zp_loop_close(living.loop));
    for (index = 0; index < COUNT(ports); index++) EXPECT(ZP_OK, zp_port_close(ports[index]));
    EXPECT(ZP_OK, zp_port_close(as_port(good[PORT])));
    EXPECT(ZP_OK, zp_port_close(as_port(good[MESSAGE])));
    EXPECT(ZP_OK, zp_buffer_free(as_buffer(good[BUFFER])));
    EXPECT(ZP_OK, zp_caller_refuse(as_caller(good[CALLER])));
    EXPECT(ZP_OK, zp_server_close(as_server(good[SERVER])));
}

static void list(void) {
    size_t index;
    for (index = 0; index < COUNT(HELD); index++) puts(HELD[index].function);
    for (index = 0; index < COUNT(ITEMS); index++) puts(ITEMS[index].function);
    for (index = 0; index < COUNT(FREE); index++) puts(FREE[index].function);
}

int main(int argc, char **argv) {
    tried left[2];
    size_t index;
    alarm(55); /* whoever is stuck ends before the test that waits for it */
    if (argc > 1 && strcmp(argv[1], "list") == 0) {
        list();
        return 0;
    }
    sprintf(address, "@zeroport-handles-%ld", (long)getpid());
    make_living();
    make_spent();
    make_left(left);
    all_work();
    for (index = 0; index < COUNT(HELD); index++) {
        bad_handles(&HELD[index], 0, left);
        bad_pointers(&HELD[index]);
        all_work();
    }
    for (index = 0; index < COUNT(ITEMS); index++) bad_handles(&ITEMS[index], 1, left);
    for (index = 0; index < COUNT(FREE); index++) bad_pointers(&FREE[index]);
    all_work();
    for (index = 0; index < COUNT(HELD); index++) in_a_fork(&HELD[index], 0);
    for (index = 0; index < COUNT(ITEMS); index++) in_a_fork(&ITEMS[index], 1);
    close_all();
    return failures == 0 ? 0 : 1;
}
