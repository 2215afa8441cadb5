/* Options, loans, batches, tags, buffers, descriptors: what they do, and what they refuse. */
#define _DEFAULT_SOURCE

#include <poll.h>
#include <unistd.h>

#include "expect.h"

static zp_port one, other;

static void open_pair(uint32_t trust) {
    zp_port ends[2];
    EXPECT(ZP_OK, make_channel(ends, trust));
    one = ends[0];
    other = ends[1];
}

static void close_pair(void) {
    EXPECT(ZP_OK, zp_port_close(one));
    EXPECT(ZP_OK, zp_port_close(other));
}

static void expect_message(const char *text, uint32_t tag) {
    zp_message message;
    EXPECT(ZP_OK, zp_port_try_recv(other, &message));
    HOLDS(message.len == strlen(text) && memcmp(message.data, text, message.len) == 0);
    HOLDS(message.tag == tag);
    EXPECT(ZP_OK, zp_message_release(&message));
}

static void options(void) {
    struct {
        zp_channel_options known;
        uint64_t more;
    } later = {ZP_CHANNEL_OPTIONS_INIT, 0};
    zp_channel_options options = ZP_CHANNEL_OPTIONS_INIT;
    zp_port ends[2];
    zp_info info;
    options.capacity[0] = 1 << 20;
    options.capacity[1] = 4096;
    options.limit[0] = options.limit[1] = 0;
    options.trust = ZP_TRUST_UNTRUSTED;
    options.wait = ZP_WAIT_SLEEP;
    options.cold = 1;
    EXPECT(ZP_OK, zp_channel_new(ends, &options));
    EXPECT(ZP_OK, zp_port_info(ends[0], &info));
    HOLDS(info.max_in_ring == (1 << 19) - 32 && !info.is_trusted && !info.is_member);
    EXPECT(ZP_OK, zp_port_info(ends[1], &info));
    HOLDS(info.max_in_ring == 2048 - 32 && info.sleeps == 0);
    while (zp_port_try_post(ends[1], "x", 1) == ZP_OK) continue; /* no queue beyond the ring */
    EXPECT(ZP_FULL, zp_port_try_post(ends[1], "x", 1));
    EXPECT(ZP_OK, zp_port_set_wait(ends[0], ZP_WAIT_SPIN));
    EXPECT(ZP_BAD_ARGUMENT, zp_port_set_wait(ends[0], 3));
    EXPECT(ZP_BAD_ARGUMENT, zp_port_info(ends[0], NULL));
    EXPECT(ZP_OK, zp_port_close(ends[0]));
    EXPECT(ZP_OK, zp_port_close(ends[1]));

    options.capacity[0] = 5000;
    EXPECT(ZP_BAD_ARGUMENT, zp_channel_new(ends, &options));
    options.capacity[0] = 0;
    options.wait = 3;
    EXPECT(ZP_BAD_ARGUMENT, zp_channel_new(ends, &options));
    options.wait = 0;
    options.cold = 2;
    EXPECT(ZP_BAD_ARGUMENT, zp_channel_new(ends, &options));
    options.cold = 0;
    options.reserved = 1;
    EXPECT(ZP_BAD_ARGUMENT, zp_channel_new(ends, &options));
    options.reserved = 0;
    options.size = sizeof options - 1;
    EXPECT(ZP_BAD_ARGUMENT, zp_channel_new(ends, &options));
    options.size = 0;
    EXPECT(ZP_BAD_ARGUMENT, zp_channel_new(ends, &options));
    /* A program that knows more than the library, and does not use it. */
    later.known.size = sizeof later;
    EXPECT(ZP_OK, zp_channel_new(ends, &later.known));
    EXPECT(ZP_OK, zp_port_close(ends[0]));
    EXPECT(ZP_OK, zp_port_close(ends[1]));
    later.more = 1;
    EXPECT(ZP_BAD_ARGUMENT, zp_channel_new(ends, &later.known));
}

static void loans(uint32_t trust) {
    zp_loan loan, copy, second;
    zp_port gone, ends[2];
    zp_item item;
    zp_message message;
    size_t index, large = (size_t)1 << 20;
    open_pair(trust);
    EXPECT(ZP_OK, zp_port_reserve(one, 100, &loan));
    HOLDS(loan.data != NULL && loan.len == 100);
    memcpy(loan.data, "in place", 8);
    EXPECT(ZP_LOANED, zp_port_post(one, "x", 1));
    EXPECT(ZP_LOANED, zp_port_try_reserve(one, 1, &second));
    HOLDS(second.data == NULL && second.len == 0);
    EXPECT(ZP_LOANED, zp_port_close(one));
    EXPECT(ZP_TOO_LARGE, zp_loan_publish(&loan, 101, 0, NULL, 0, NULL));
    copy = loan;
    copy.opaque[1]++;
    EXPECT(ZP_BAD_HANDLE, zp_loan_publish(&copy, 1, 0, NULL, 0, NULL));
    EXPECT(ZP_BAD_HANDLE, zp_loan_cancel(&copy));
    EXPECT(ZP_BAD_ARGUMENT, zp_loan_publish(NULL, 1, 0, NULL, 0, NULL));
    EXPECT(ZP_BAD_ARGUMENT, zp_loan_publish(&loan, 8, 0, NULL, 1, NULL));
    EXPECT(ZP_BAD_ARGUMENT, zp_loan_cancel(NULL));
    EXPECT(ZP_BAD_ARGUMENT, zp_port_reserve(one, 1, NULL));
    item.id = one.id;
    EXPECT(ZP_CARRIER, zp_loan_publish(&loan, 8, 0, &item, 1, &index));
    HOLDS(index == 0 && loan.len == 100);
    copy = loan;
    EXPECT(ZP_OK, zp_loan_publish(&loan, 8, 7, NULL, 0, NULL));
    HOLDS(loan.data == NULL && loan.len == 0);
    EXPECT(ZP_FREED, zp_loan_publish(&copy, 8, 0, NULL, 0, NULL));
    EXPECT(ZP_FREED, zp_loan_cancel(&copy));
    EXPECT(ZP_BAD_HANDLE, zp_loan_cancel(&loan));
    expect_message("in place", 7);

    EXPECT(ZP_OK, zp_port_try_reserve(one, 10, &loan));
    EXPECT(ZP_OK, zp_loan_cancel(&loan));
    HOLDS(loan.data == NULL);
    EXPECT(ZP_EMPTY, zp_port_try_recv(other, &message));

    /* With a port, and larger than the ring. */
    EXPECT(ZP_OK, make_channel(ends, trust));
    item.id = ends[0].id;
    EXPECT(ZP_OK, zp_port_reserve_timeout(one, large, &loan, 1000));
    memset(loan.data, 'L', large);
    EXPECT(ZP_OK, zp_loan_publish(&loan, large, 0, &item, 1, &index));
    EXPECT(ZP_TRANSFERRED, zp_port_close(ends[0]));
    EXPECT(ZP_OK, zp_port_recv(other, &message));
    HOLDS(message.len == large && message.port_count == 1);
    HOLDS(((const char *)message.data)[large - 1] == 'L');
    EXPECT(ZP_OK, zp_message_release(&message));
    EXPECT(ZP_OK, zp_port_close(ends[1]));
    gone = one;
    close_pair();
    EXPECT(ZP_FREED, zp_port_reserve(gone, 1, &loan));
}

static void batches(void) {
    enum { MANY = 1000 };
    static zp_post posts[MANY];
    static zp_message messages[MANY];
    static uint32_t numbers[MANY];
    zp_message copy;
    zp_item item;
    size_t index, count, got = 0;
    uint32_t tag = zp_tag_of_plain_data("u32", 4, 4);
    HOLDS(tag != 0 && tag != zp_tag_of_name("u32") && zp_tag_of_name(NULL) == 0);
    open_pair(ZP_TRUST_USUAL);
    for (index = 0; index < MANY; index++) {
        numbers[index] = (uint32_t)index;
        posts[index] = a_post(&numbers[index], 4, NULL, 0);
        posts[index].tag = tag;
    }
    EXPECT(ZP_OK, zp_port_post_all(one, posts, MANY, &count));
    HOLDS(count == MANY);
    EXPECT(ZP_BAD_ARGUMENT, zp_port_recv_all(other, messages, 0, &count));
    EXPECT(ZP_BAD_ARGUMENT, zp_port_recv_all(other, NULL, 1, &count));
    EXPECT(ZP_BAD_ARGUMENT, zp_port_recv_all(other, messages, 1, NULL));
    EXPECT(ZP_OK, zp_port_recv_all(other, messages, 10, &count));
    HOLDS(count == 10);
    for (got = 10; got < MANY; got += count) {
        EXPECT(ZP_OK, zp_port_try_recv_all(other, messages + got, MANY - got, &count));
    }
    for (index = 0; index < MANY; index++) {
        HOLDS(messages[index].tag == tag && *(const uint32_t *)messages[index].data == index);
    }
    EXPECT(ZP_EMPTY, zp_port_try_recv_all(other, messages, 1, &count));
    EXPECT(ZP_EMPTY, zp_port_recv_all_timeout(other, messages, 1, &count, 1));
    HOLDS(count == 0);
    copy = messages[5];
    EXPECT(ZP_OK, zp_message_release(&copy));
    EXPECT(ZP_FREED, zp_messages_release(messages, MANY)); /* all but that one */
    HOLDS(messages[4].data == NULL && messages[5].data != NULL && messages[6].data == NULL);
    EXPECT(ZP_FREED, zp_messages_release(&messages[5], 1));
    EXPECT(ZP_OK, zp_messages_release(NULL, 0));
    EXPECT(ZP_BAD_ARGUMENT, zp_messages_release(NULL, 1));

    /* Nothing is posted if one of them is wrong. */
    item.id = 0;
    posts[1] = a_post("x", 1, &item, 1);
    EXPECT(ZP_BAD_ARGUMENT, zp_port_post_all(one, posts, 2, &count));
    posts[1] = a_post(NULL, 1, NULL, 0);
    EXPECT(ZP_BAD_ARGUMENT, zp_port_post_all(one, posts, 2, &count));
    EXPECT(ZP_BAD_ARGUMENT, zp_port_post_all(one, NULL, 1, NULL));
    posts[1] = a_post("x", 1, NULL, 0);
    posts[1].reserved = 1;
    EXPECT(ZP_BAD_ARGUMENT, zp_port_post_all(one, posts, 2, &count));
    EXPECT(ZP_BAD_ARGUMENT, zp_port_try_post_with(one, &posts[1], NULL));
    EXPECT(ZP_OK, zp_port_post_all(one, NULL, 0, &count));
    HOLDS(count == 0);
    EXPECT(ZP_EMPTY, zp_port_try_recv(other, &copy));
    EXPECT(ZP_OK, zp_port_close(other));
    EXPECT(ZP_CLOSED, zp_port_try_post_all(one, posts, 1, &count));
    EXPECT(ZP_OK, zp_port_close(one));
}

static void buffers(uint32_t trust) {
    zp_buffer buffer, copy, taken[2], none = {0};
    zp_item items[2];
    zp_post post;
    zp_message message;
    void *data;
    const void *bytes;
    size_t len, count, index;
    open_pair(trust);
    EXPECT(ZP_OK, zp_buffer_new(5000, &buffer));
    EXPECT(ZP_OK, zp_buffer_write(buffer, &data, &len));
    HOLDS(len == 5000 && (uintptr_t)data % 4096 == 0 && ((char *)data)[4999] == 0);
    memset(data, 'b', len);
    EXPECT(ZP_OK, zp_buffer_copy(buffer, &copy));
    EXPECT(ZP_OK, zp_buffer_seal(copy));
    EXPECT(ZP_OK, zp_buffer_seal(copy));
    EXPECT(ZP_SEALED, zp_buffer_write(copy, &data, &len));
    HOLDS(data == NULL && len == 0);
    EXPECT(ZP_OK, zp_buffer_read(copy, &bytes, &len));
    HOLDS(len == 5000 && ((const char *)bytes)[4999] == 'b');

    items[0].id = buffer.id;
    items[1].id = buffer.id;
    post = a_post("two", 3, items, 2);
    EXPECT(ZP_DUPLICATE, zp_port_post_with(one, &post, &index));
    HOLDS(index == 1);
    items[1].id = other.id;
    EXPECT(ZP_OTHER_END, zp_port_post_with(one, &post, &index));
    HOLDS(index == 1);
    EXPECT(ZP_OK, zp_buffer_read(buffer, &bytes, &len));
    items[1].id = copy.id;
    EXPECT(ZP_OK, zp_port_post_with(one, &post, &index));
    EXPECT(ZP_TRANSFERRED, zp_buffer_read(buffer, &bytes, &len));
    EXPECT(ZP_TRANSFERRED, zp_buffer_free(copy));
    EXPECT(ZP_OK, zp_port_recv(other, &message));
    HOLDS(message.buffer_count == 2 && message.port_count == 0);
    EXPECT(ZP_TOO_SMALL, zp_message_take_buffers(&message, taken, 1, &count));
    HOLDS(count == 2 && message.buffer_count == 2);
    EXPECT(ZP_OK, zp_message_take_buffers(&message, taken, 2, &count));
    HOLDS(count == 2 && message.buffer_count == 0);
    EXPECT(ZP_OK, zp_message_release(&message));
    EXPECT(ZP_SEALED, zp_buffer_write(taken[0], &data, &len));
    EXPECT(ZP_OK, zp_buffer_read(taken[0], &bytes, &len));
    HOLDS(len == 5000 && ((const char *)bytes)[0] == 'b');

    EXPECT(ZP_BAD_HANDLE, zp_buffer_read(none, &bytes, &len));
    none.id = one.id; /* of another kind */
    EXPECT(ZP_BAD_HANDLE, zp_buffer_read(none, &bytes, &len));
    EXPECT(ZP_BAD_HANDLE, zp_buffer_free(none));
    EXPECT(ZP_BAD_HANDLE, zp_buffer_seal(none));
    EXPECT(ZP_BAD_HANDLE, zp_buffer_copy(none, &copy));
    EXPECT(ZP_BAD_ARGUMENT, zp_buffer_new(1, NULL));
    EXPECT(ZP_BAD_ARGUMENT, zp_buffer_read(taken[0], NULL, &len));
    EXPECT(ZP_BAD_ARGUMENT, zp_buffer_write(taken[0], &data, NULL));
    EXPECT(ZP_SYSTEM, zp_buffer_new(SIZE_MAX, &copy));
    HOLDS(copy.id == 0);
    EXPECT(ZP_OK, zp_buffer_free(taken[0]));
    EXPECT(ZP_FREED, zp_buffer_free(taken[0]));
    EXPECT(ZP_OK, zp_buffer_free(taken[1]));
    close_pair();
}

static void descriptors(void) {
    uint8_t ticket[ZP_TICKET_LEN];
    int fds[ZP_MAX_DESCRIPTORS], twice[2];
    zp_port back, trusted[2];
    size_t count;
    open_pair(ZP_TRUST_UNTRUSTED);
    EXPECT(ZP_OK, zp_port_post(other, "waits", 5));
    EXPECT(ZP_TOO_SMALL, zp_port_detach(one, ZP_TRUST_UNTRUSTED, ticket, fds, 1, &count));
    HOLDS(count == ZP_MAX_DESCRIPTORS);
    EXPECT(ZP_BAD_ARGUMENT, zp_port_detach(one, 0, ticket, fds, ZP_MAX_DESCRIPTORS, &count));
    EXPECT(ZP_BAD_ARGUMENT, zp_port_detach(one, 2, NULL, fds, ZP_MAX_DESCRIPTORS, &count));
    EXPECT(ZP_BAD_ARGUMENT, zp_port_detach(one, 2, ticket, NULL, ZP_MAX_DESCRIPTORS, &count));
    EXPECT(ZP_OK, zp_port_detach(one, 2, ticket, fds, ZP_MAX_DESCRIPTORS, &count));
    HOLDS(count >= 2);
    EXPECT(ZP_TRANSFERRED, zp_port_close(one));
    twice[0] = twice[1] = fds[0];
    EXPECT(ZP_BAD_ARGUMENT, zp_port_attach(ticket, twice, 2, 2, &back));
    twice[1] = -1;
    EXPECT(ZP_BAD_ARGUMENT, zp_port_attach(ticket, twice, 2, 2, &back));
    HOLDS(back.id == 0);
    EXPECT(ZP_BAD_ARGUMENT, zp_port_attach(ticket, fds, count, 0, &back));
    EXPECT(ZP_BAD_ARGUMENT, zp_port_attach(NULL, fds, count, 2, &back));
    EXPECT(ZP_OK, zp_port_attach(ticket, fds, count, ZP_TRUST_UNTRUSTED, &back));
    one = other;
    other = back;
    expect_message("waits", 0);
    close_pair();

    EXPECT(ZP_OK, make_channel(trusted, ZP_TRUST_USUAL));
    EXPECT(ZP_TRUSTED, zp_port_detach(trusted[0], 2, ticket, fds, ZP_MAX_DESCRIPTORS, &count));
    HOLDS(count == 0);
    EXPECT(ZP_OK, zp_port_post(trusted[0], "still ours", 10));
    EXPECT(ZP_OK, zp_port_detach(trusted[0], 1, ticket, fds, ZP_MAX_DESCRIPTORS, &count));
    EXPECT(ZP_OK, zp_port_attach(ticket, fds, count, ZP_TRUST_TRUSTED, &back));
    one = back;
    other = trusted[1];
    expect_message("still ours", 0);
    close_pair();
}

static int is_readable(int fd) {
    struct pollfd poll_fd = {0, POLLIN, 0};
    poll_fd.fd = fd;
    return poll(&poll_fd, 1, 0) == 1;
}

static void pollable(void) {
    zp_message message;
    int fd;
    open_pair(ZP_TRUST_USUAL);
    EXPECT(ZP_BAD_ARGUMENT, zp_port_fd(other, NULL));
    EXPECT(ZP_OK, zp_port_fd(other, &fd));
    EXPECT(ZP_OK, zp_port_arm(other));
    HOLDS(!is_readable(fd));
    EXPECT(ZP_OK, zp_port_post(one, "x", 1));
    HOLDS(is_readable(fd));
    EXPECT(ZP_READY, zp_port_arm(other));
    EXPECT(ZP_OK, zp_port_try_recv(other, &message));
    EXPECT(ZP_OK, zp_message_release(&message));
    EXPECT(ZP_OK, zp_port_arm(other));
    EXPECT(ZP_OK, zp_port_disarm(other));
    close_pair();
    EXPECT(ZP_FREED, zp_port_fd(other, &fd));
    HOLDS(fd == -1);
    EXPECT(ZP_FREED, zp_port_arm(other));
    EXPECT(ZP_FREED, zp_port_disarm(other));
}

int main(void) {
    alarm(55); /* whoever is stuck ends before the test that waits for it */
    options();
    loans(ZP_TRUST_USUAL);
    loans(ZP_TRUST_UNTRUSTED);
    batches();
    buffers(ZP_TRUST_USUAL);
    buffers(ZP_TRUST_UNTRUSTED);
    descriptors();
    pollable();
    return 0;
}
