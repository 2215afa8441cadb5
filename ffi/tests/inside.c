/*
 * Every call on a port, its message and its loop from inside of each handler: the status that the header promises, and
 * `removed` once afterwards, whatever was called.
 */
#define _POSIX_C_SOURCE 200809L

#include <unistd.h>

#include "rows.h"

/* Where the call is made. */
enum where { ON_MESSAGE, ON_CLOSE, REMOVED_AT_END, REMOVED_BY_CLOSE, WHERES };
static const char *const WHERE[] = {"on_message", "on_close", "removed after the end", "removed by zp_loop_close"};

static enum where where;
static const row *row_to_call;
static zp_port far_of_member;
static int calls, messages, closes, removes, failures;

typedef struct expectation {
    const char *row;
    zp_status status;
} expectation;

/* A member: its loop receives for it, and that is the loop in which we are. What is not here is ZP_OK. */
static const expectation OF_A_MEMBER[] = {
    {"port_reserve", ZP_MEMBER},      {"port_try_reserve", ZP_MEMBER},
    {"port_reserve_timeout", ZP_MEMBER}, {"port_recv", ZP_MEMBER},
    {"port_try_recv", ZP_MEMBER},     {"port_recv_timeout", ZP_MEMBER},
    {"port_recv_all", ZP_MEMBER},     {"port_try_recv_all", ZP_MEMBER},
    {"port_recv_all_timeout", ZP_MEMBER}, {"port_fd", ZP_MEMBER},
    {"port_arm", ZP_MEMBER},          {"port_disarm", ZP_MEMBER},
    {"set_insert_of", ZP_MEMBER},     {"set_remove_of", ZP_STRANGER},
    {"set_pause_of", ZP_STRANGER},    {"set_resume_of", ZP_STRANGER},
    {"loop_insert_of", ZP_MEMBER},    {"port_detach", ZP_MEMBER},
    {"post_item", ZP_MEMBER},         {"try_post_item", ZP_MEMBER},
    {"post_item_timeout", ZP_MEMBER}, {"post_named_item", ZP_MEMBER},
    {"invoke_item", ZP_MEMBER},       {"port_split", ZP_MEMBER},
    {"port_join", ZP_HALF},           {"port_join_of", ZP_HALF}};

/* A loop that runs. */
static const expectation OF_THE_LOOP[] = {{"loop_run", ZP_BUSY},
                                          {"loop_run_timeout", ZP_BUSY},
                                          {"loop_run_once", ZP_BUSY},
                                          {"loop_run_ready", ZP_BUSY},
                                          {"loop_close", ZP_BUSY}};

static zp_status look_up(const expectation *list, size_t count, const char *name) {
    size_t index;
    for (index = 0; index < count; index++) {
        if (strcmp(list[index].row, name) == 0) return list[index].status;
    }
    return ZP_OK;
}

static zp_status expected(const row *row) {
    zp_status of_loop = look_up(OF_THE_LOOP, COUNT(OF_THE_LOOP), row->name);
    if (strcmp(row->name, "message_open") == 0) return ZP_UNNAMED; /* so it is told */
    if (row->kind == MESSAGE) return ZP_OK;
    if (where == REMOVED_BY_CLOSE) return ZP_FREED;
    if (row->kind == LOOP && of_loop != ZP_OK) return of_loop;
    if (where == ON_MESSAGE) return look_up(OF_A_MEMBER, COUNT(OF_A_MEMBER), row->name);
    if (row->kind == PORT) return ZP_FREED;
    /* They name the member, too. */
    if (strcmp(row->name, "loop_remove") == 0 || strcmp(row->name, "loop_pause") == 0) return ZP_FREED;
    if (strcmp(row->name, "loop_resume") == 0) return ZP_FREED;
    return ZP_OK;
}

static void call_now(enum where here, const zp_message *message) {
    tried it = {0, 0};
    zp_status found;
    if (where != here || calls > 0) return;
    calls++;
    if (row_to_call->kind == MESSAGE) {
        it.id = message->opaque[0];
        it.number = message->opaque[1];
    } else {
        it.id = row_to_call->kind == LOOP ? living.loop.id : living.member.id;
    }
    found = row_to_call->call(it);
    if (found != expected(row_to_call)) {
        fprintf(stderr, "%s in %s: %s\n", row_to_call->name, WHERE[where], zp_status_text(found));
        failures++;
    }
}

static void on_message(void *user, zp_port port, zp_message *message) {
    HOLDS(user == &calls && port.id == living.member.id && removes == 0);
    HOLDS(message->len == 4 && message->port_count == 1 && message->buffer_count == 0);
    messages++;
    call_now(ON_MESSAGE, message);
    HOLDS(removes == 0); /* never while another handler runs */
}

static void on_close(void *user, zp_port port, zp_status reason) {
    HOLDS(user == &calls && port.id == living.member.id && reason == ZP_CLOSED && removes == 0);
    closes++;
    call_now(ON_CLOSE, NULL);
    HOLDS(removes == 0);
}

static void removed(void *user) {
    HOLDS(user == &calls);
    removes++;
    call_now(where, NULL);
}

static void close_port(zp_port port) {
    zp_status status = zp_port_close(port);
    HOLDS(status == ZP_OK || status == ZP_FREED || status == ZP_TRANSFERRED);
}

static void set_up(void) {
    static const zp_handlers handlers = {sizeof handlers, on_message, on_close, NULL, removed};
    zp_port given, far_of_given;
    zp_item item;
    zp_post post = a_post("told", 4, &item, 1);
    calls = messages = closes = removes = 0;
    EXPECT(ZP_OK, zp_set_new(&living.set));
    EXPECT(ZP_OK, zp_loop_new(&living.loop));
    open_pair(&living.port, &living.far);
    open_pair(&living.other, &living.other_far);
    open_pair(&living.member, &far_of_member);
    split_one();
    open_pair(&given, &far_of_given);
    item.id = given.id;
    EXPECT(ZP_OK, zp_port_post_with(far_of_member, &post, NULL));
    EXPECT(ZP_OK, zp_port_close(far_of_given));
    EXPECT(ZP_OK, zp_loop_insert(living.loop, living.member, &handlers, &calls));
}

static void tear_down(void) {
    zp_status status = zp_loop_close(living.loop);
    HOLDS(status == ZP_OK || (status == ZP_FREED && where == REMOVED_BY_CLOSE));
    HOLDS(calls == 1 && removes == 1);
    if (outs.taken[0].id != 0) close_port(outs.taken[0]);
    close_port(living.member);
    close_port(far_of_member);
    close_port(living.port);
    close_port(living.far);
    close_port(living.other);
    close_port(living.other_far);
    close_port(living.halves[0]);
    close_port(living.halves[1]);
    close_port(living.far_of_halves);
    EXPECT(ZP_OK, zp_set_close(living.set));
}

/* The member is told its message, and then its end; or goes with its loop. */
static void try_row(const row *row) {
    row_to_call = row;
    memset(&outs, 0, sizeof outs);
    set_up();
    if (where == REMOVED_BY_CLOSE) {
        EXPECT(ZP_OK, zp_loop_close(living.loop));
    } else {
        zp_status status = zp_loop_run_once(living.loop);
        HOLDS((status == ZP_OK || status == ZP_FINISHED) && messages == 1);
        if (where != ON_MESSAGE) {
            EXPECT(ZP_OK, zp_port_close(far_of_member));
            status = zp_loop_run_once(living.loop);
            HOLDS((status == ZP_OK || status == ZP_FINISHED) && closes == 1);
        }
    }
    tear_down();
}

/* What has to do with the loop. The others know nothing of it. */
static int concerns_us(const row *row) {
    if (row->kind == MESSAGE) return where == ON_MESSAGE;
    return row->kind == PORT || row->kind == LOOP;
}

int main(void) {
    size_t index;
    int place;
    alarm(55); /* whoever is stuck ends before the test that waits for it */
    for (place = 0; place < WHERES; place++) {
        where = (enum where)place;
        for (index = 0; index < COUNT(HELD); index++) {
            if (concerns_us(&HELD[index])) try_row(&HELD[index]);
        }
        for (index = 0; index < COUNT(ITEMS); index++) try_row(&ITEMS[index]);
    }
    (void)FREE;
    return failures == 0 ? 0 : 1;
}
