/* Messages with names: first in one process, with misuse; then, as a child, in talk with a Rust program. */
#include <unistd.h>

#include "expect.h"

static int is_named(const zp_named *named, const char *name) {
    return named->name_len == strlen(name) && memcmp(named->name, name, named->name_len) == 0;
}

/* Receives a message, which must have a name. */
static void receive(zp_port port, zp_message *message, zp_named *named) {
    EXPECT(ZP_OK, zp_port_recv(port, message));
    EXPECT(ZP_OK, zp_message_open(message, named));
    HOLDS((uintptr_t)named->data % 16 == 0);
}

/* Takes the only port of a request. */
static zp_port reply_port(zp_message *message) {
    zp_port port;
    size_t count;
    EXPECT(ZP_OK, zp_message_take_ports(message, &port, 1, &count));
    HOLDS(count == 1);
    return port;
}

static void among_ourselves(uint32_t trust) {
    zp_port ends[2], replies, reply;
    zp_message message;
    zp_named named;
    zp_post post = {"payload", 7, NULL, 0, 7, 0};
    zp_item item;
    size_t index;
    char long_name[257];
    EXPECT(ZP_OK, make_channel(ends, trust));
    EXPECT(ZP_OK, zp_port_post_named(ends[0], "a name of more than 16 bytes", &post, NULL));
    receive(ends[1], &message, &named);
    HOLDS(is_named(&named, "a name of more than 16 bytes") && !named.is_request && named.tag == 7);
    HOLDS(named.len == 7 && memcmp(named.data, "payload", 7) == 0);
    EXPECT(ZP_BAD_ARGUMENT, zp_message_open(&message, NULL));
    EXPECT(ZP_BAD_ARGUMENT, zp_message_open(NULL, &named));
    EXPECT(ZP_OK, zp_message_release(&message));
    EXPECT(ZP_BAD_HANDLE, zp_message_open(&message, &named));
    HOLDS(named.name == NULL && named.data == NULL && named.len == 0);

    EXPECT(ZP_OK, zp_port_try_post_named(ends[0], "", &post, &index));
    receive(ends[1], &message, &named);
    HOLDS(named.name_len == 0 && index == ZP_NO_INDEX);
    EXPECT(ZP_OK, zp_message_release(&message));

    EXPECT(ZP_OK, zp_port_post(ends[0], "plain", 5));
    EXPECT(ZP_OK, zp_port_recv(ends[1], &message));
    EXPECT(ZP_UNNAMED, zp_message_open(&message, &named));
    EXPECT(ZP_OK, zp_message_release(&message));
    post.tag = zp_tag_of_name("zeroport.named"); /* a lie */
    EXPECT(ZP_OK, zp_port_post_with(ends[0], &post, NULL));
    EXPECT(ZP_OK, zp_port_recv(ends[1], &message));
    EXPECT(ZP_UNNAMED, zp_message_open(&message, &named));
    EXPECT(ZP_OK, zp_message_release(&message));
    post.tag = 0;

    memset(long_name, 'n', 256);
    long_name[256] = 0;
    EXPECT(ZP_TOO_LARGE, zp_port_post_named(ends[0], long_name, &post, NULL));
    EXPECT(ZP_TOO_LARGE, zp_port_invoke(ends[0], long_name, &post, NULL, &replies));
    long_name[255] = 0;
    EXPECT(ZP_OK, zp_port_post_named_timeout(ends[0], long_name, &post, NULL, 10));
    receive(ends[1], &message, &named);
    HOLDS(is_named(&named, long_name));
    EXPECT(ZP_OK, zp_message_release(&message));
    EXPECT(ZP_BAD_ARGUMENT, zp_port_post_named(ends[0], "\xff", &post, NULL));
    EXPECT(ZP_BAD_ARGUMENT, zp_port_post_named(ends[0], NULL, &post, NULL));
    EXPECT(ZP_BAD_ARGUMENT, zp_port_post_named(ends[0], "name", NULL, NULL));
    EXPECT(ZP_BAD_ARGUMENT, zp_port_invoke(ends[0], "name", &post, NULL, NULL));

    /* What cannot be given away stays, and its place in the list is told. */
    item.id = ends[1].id;
    post.items = &item;
    post.item_count = 1;
    EXPECT(ZP_OTHER_END, zp_port_invoke(ends[0], "name", &post, &index, &replies));
    HOLDS(index == 0 && replies.id == 0);
    post.item_count = 0;
    EXPECT(ZP_EMPTY, zp_port_try_recv(ends[1], &message));

    EXPECT(ZP_OK, zp_port_try_invoke(ends[0], "never answered", &post, NULL, &replies));
    receive(ends[1], &message, &named);
    HOLDS(named.is_request && message.port_count == 1);
    EXPECT(ZP_OK, zp_message_release(&message));
    EXPECT(ZP_LOST, zp_port_recv(replies, &message));
    EXPECT(ZP_OK, zp_port_close(replies));

    EXPECT(ZP_OK, zp_port_invoke_timeout(ends[0], "nobody waits", &post, NULL, &replies, 10));
    EXPECT(ZP_OK, zp_port_close(replies));
    receive(ends[1], &message, &named);
    reply = reply_port(&message);
    EXPECT(ZP_CLOSED, zp_port_post(reply, "late", 4));
    EXPECT(ZP_OK, zp_port_close(reply));
    EXPECT(ZP_OK, zp_message_release(&message));
    EXPECT(ZP_OK, zp_port_close(ends[0]));
    EXPECT(ZP_CLOSED, zp_port_post_named(ends[1], "name", &post, NULL));
    EXPECT(ZP_OK, zp_port_close(ends[1]));
}

/* Answers a request of the Rust program. */
static void answer(zp_port parent, zp_message *message, const zp_named *named) {
    zp_port reply = reply_port(message);
    const uint32_t *numbers = named->data, tag = zp_tag_of_plain_data("u32", 4, 4);
    uint32_t sum = 0;
    size_t n;
    zp_post post = {NULL, 0, NULL, 0, 0, 0};
    if (is_named(named, "sum")) {
        HOLDS(named->tag == tag);
        for (n = 0; n < named->len / 4; n++) sum += numbers[n];
        post.data = &sum;
        post.len = sizeof sum;
        post.tag = tag;
        EXPECT(ZP_OK, zp_port_post_with(reply, &post, NULL));
    } else if (is_named(named, "fail")) {
        post.data = "on purpose";
        post.len = 10;
        post.tag = ZP_TAG_FAILED;
        EXPECT(ZP_OK, zp_port_post_with(reply, &post, NULL));
    } else if (is_named(named, "ask back")) {
        zp_port replies;
        zp_message number;
        EXPECT(ZP_OK, zp_port_invoke(parent, "number", &post, NULL, &replies));
        EXPECT(ZP_OK, zp_port_recv(replies, &number));
        HOLDS(number.tag == tag && number.len == 4);
        memcpy(&sum, number.data, 4);
        EXPECT(ZP_OK, zp_message_release(&number));
        EXPECT(ZP_CLOSED, zp_port_recv(replies, &number));
        EXPECT(ZP_OK, zp_port_close(replies));
        EXPECT(ZP_OK, zp_port_invoke(parent, "refused", &post, NULL, &replies));
        EXPECT(ZP_OK, zp_port_recv(replies, &number));
        HOLDS(number.tag == ZP_TAG_FAILED);
        post.data = number.data;
        post.len = number.len;
        EXPECT(ZP_OK, zp_port_post_named(parent, "why", &post, NULL));
        EXPECT(ZP_OK, zp_message_release(&number));
        EXPECT(ZP_OK, zp_port_close(replies));
        post.data = &sum;
        post.len = sizeof sum;
        post.tag = tag;
        EXPECT(ZP_OK, zp_port_post_with(reply, &post, NULL));
    }
    EXPECT(ZP_OK, zp_port_close(reply));
}

int main(void) {
    zp_port parent;
    zp_message message;
    zp_named named;
    zp_status status;
    alarm(55); /* whoever is stuck ends before the test that waits for it */
    among_ourselves(ZP_TRUST_USUAL);
    among_ourselves(ZP_TRUST_UNTRUSTED);
    if (zp_parent_port(&parent) != ZP_OK) return 0;
    while ((status = zp_port_recv(parent, &message)) == ZP_OK) {
        EXPECT(ZP_OK, zp_message_open(&message, &named));
        HOLDS(named.is_request);
        answer(parent, &message, &named);
        EXPECT(ZP_OK, zp_message_release(&message));
    }
    HOLDS(status == ZP_CLOSED);
    EXPECT(ZP_OK, zp_port_close(parent));
    return 0;
}
