/* Ports, messages, loans, buffers and descriptors from C++: every method, moves, and misuse. */
#include "expect.hpp"

#include <fcntl.h>
#include <poll.h>

#include <thread>
#if __cplusplus >= 202002L
#include <span>
#endif

using namespace std::chrono_literals;
using zeroport::mismatch;

struct point {
    static constexpr const char *zeroport_name = "test.Point";
    std::int32_t x, y;
};

namespace theirs {
enum class colour : std::uint8_t { red = 1, green = 2 };
struct alignas(64) wide {
    std::uint64_t numbers[8];
};
} // namespace theirs
template <>
struct zeroport::name_of<theirs::colour> {
    static constexpr const char *value = "test.Colour";
};
template <>
struct zeroport::name_of<theirs::wide> {
    static constexpr const char *value = "test.Wide";
};

static void expect_text(zeroport::port_ref port, std::string_view expected) {
    const auto message = port.try_recv();
    EXPECT(ZP_OK, message);
    HOLDS(message->text() == expected && message->size() == expected.size());
}

template <class T>
static void expect_tag(const char *name) {
    const std::uint32_t tag = zp_tag_of_plain_data(name, sizeof(T), alignof(T));
    HOLDS(zeroport::tag_of<T> == tag);
    HOLDS(zeroport::tag_of_plain_data(name, sizeof(T), alignof(T)) == tag);
}

/* The compiler computes what the library does. */
static void tags() {
    static_assert(zeroport::tag_of<std::uint32_t> == 0xb1fdade3, "as src/tag.rs has it");
    static_assert(zeroport::tag_of_name("demo.Question") == 0x4a9cf414, "as src/tag.rs has it");
    expect_tag<signed char>("i8");
    expect_tag<unsigned char>("u8");
    expect_tag<std::byte>("u8");
    expect_tag<short>("i16");
    expect_tag<unsigned short>("u16");
    expect_tag<int>("i32");
    expect_tag<unsigned>("u32");
    expect_tag<long>(sizeof(long) == 8 ? "i64" : "i32");
    expect_tag<unsigned long>(sizeof(long) == 8 ? "u64" : "u32");
    expect_tag<long long>("i64");
    expect_tag<unsigned long long>("u64");
    expect_tag<float>("f32");
    expect_tag<double>("f64");
    expect_tag<std::array<std::uint16_t, 3>>("u16");
    expect_tag<point>("test.Point");
    expect_tag<theirs::colour>("test.Colour");
    for (const char *name : {"", "a", "\xc3\xa9", "app.Question/2"}) {
        HOLDS(zeroport::tag_of_name(name) == zp_tag_of_name(name));
        HOLDS(zeroport::tag_of_plain_data(name, UINT64_MAX, 1) ==
              zp_tag_of_plain_data(name, UINT64_MAX, 1));
    }
}

static void patience() {
    using zeroport::patience;
    static_assert(patience(5ms).milliseconds() == 5, "");
    static_assert(patience(1ns).milliseconds() == 1 && patience(1001us).milliseconds() == 2, "");
    static_assert(patience(-1s).milliseconds() == 0 && patience(0s).milliseconds() == 0, "");
    static_assert(patience(std::chrono::hours::max()).milliseconds() == UINT32_MAX, "");
}

static void spans() {
    int numbers[] = {1, 2, 3};
    std::vector<int> vector{4, 5};
    const std::array<int, 1> array{6};
    zeroport::span<int> from_array = numbers;
    zeroport::span<const int> other = from_array;
    HOLDS(other.size() == 3 && other[2] == 3 && !other.empty() && other.first(1).size() == 1);
    other = vector;
    HOLDS(other.begin() == vector.data() && other.end() == other.begin() + 2);
    other = array;
    HOLDS(*other.data() == 6);
    HOLDS(zeroport::span<int>().empty() && zeroport::bytes().empty());
    HOLDS(zeroport::bytes(static_cast<const char *>(nullptr)).empty());
    HOLDS(zeroport::bytes(std::string("four")).size() == 4 && zeroport::bytes("\0x").empty());
    HOLDS(zeroport::bytes(std::vector<std::uint8_t>(5)).size() == 5);
    static_assert(!std::is_convertible_v<std::vector<int>, zeroport::bytes>, "ints are no bytes");
    static_assert(!std::is_convertible_v<const std::vector<int> &, zeroport::span<int>>, "const");
#if __cplusplus >= 202002L
    std::span<const int> standard = other;
    other = standard;
    HOLDS(other.size() == 1 && standard.data() == other.data());
    HOLDS(zeroport::bytes(std::as_bytes(standard)).size() == sizeof(int));
#endif
}

static void posts() {
    auto [near, far] = a_channel();
    EXPECT(ZP_EMPTY, far.try_recv());
    EXPECT(ZP_EMPTY, far.recv(1ms));
    EXPECT(ZP_OK, near.post_bytes("text"));
    EXPECT(ZP_OK, near.post_bytes(std::string_view("view"), zeroport::no_wait));
    EXPECT(ZP_OK, near.post_bytes(std::vector<std::byte>(3), 10ms));
    EXPECT(ZP_OK, near.post_bytes({}));
    expect_text(far, "text");
    expect_text(far, "view");
    expect_text(far, std::string_view("\0\0\0", 3));
    expect_text(far, "");
    EXPECT(ZP_TOO_LARGE, near.post_bytes({"", std::size_t{1} << 33}));

    EXPECT(ZP_OK, near.post(point{1, -1}));
    EXPECT(ZP_OK, near.post(7U, zeroport::no_wait));
    EXPECT(ZP_OK, near.post(theirs::colour::green, 10ms));
    EXPECT(ZP_OK, near.post(std::array<std::uint16_t, 2>{8, 9}));
    const auto first = far.recv();
    HOLDS(first->is<point>() && GET(first->get<point>()).y == -1 && first->tag() != 0);
    HOLDS(GET(GET(far.recv(1ms)).get<unsigned>()) == 7);
    HOLDS(GET(GET(far.recv()).get<theirs::colour>()) == theirs::colour::green);
    const auto pair = far.recv();
    HOLDS((GET(pair->get<std::array<std::uint16_t, 2>>())[1] == 9));
    HOLDS((pair->get<std::array<std::uint16_t, 3>>().differs() == mismatch::type));

    const std::vector<point> points{{1, 2}, {3, 4}, {5, 6}};
    const double numbers[] = {0.5};
    EXPECT(ZP_OK, near.post_slice(points));
    EXPECT(ZP_OK, near.post_slice(numbers, zeroport::no_wait));
    EXPECT(ZP_OK, near.post_slice(zeroport::span<const point>(), 1ms));
    const auto slice = far.recv();
    HOLDS(GET(slice->get_slice<point>()).size() == 3 && GET(slice->get_slice<point>())[2].x == 5);
    HOLDS(slice->get<point>().differs() == mismatch::size);
    const auto number = far.recv();
    HOLDS(GET(number->get_slice<double>())[0] == 0.5 && GET(number->get<double>()) == 0.5);
    HOLDS(GET(GET(far.recv()).get_slice<point>()).empty());
}

/* What came is something else: told, and never read. */
static void mismatches() {
    auto [near, far] = a_channel();
    EXPECT(ZP_OK, near.post(1U));
    EXPECT(ZP_OK, near.post_bytes("four"));
    const zp_post lie = zeroport::as_post("abc", zeroport::tag_of<unsigned>);
    EXPECT(ZP_OK, near.post_with(lie, {}));
    const auto number = far.recv();
    const auto wrong = number->get<int>();
    EXPECT(ZP_BAD_ARGUMENT, wrong);
    HOLDS(wrong.differs() == mismatch::type && wrong.errno_value() == 0);
    HOLDS(wrong.text() == std::string_view("the message is of another type"));
    HOLDS(number->get_slice<int>().differs() == mismatch::type);
    HOLDS(GET(far.recv()).get<unsigned>().differs() == mismatch::type);
    const auto short_one = far.recv();
    HOLDS(short_one->get<unsigned>().differs() == mismatch::size);
    HOLDS(short_one->get_slice<unsigned>().differs() == mismatch::size);

    /* Data begin at multiples of 16 bytes: some of them are none of 64. */
    int misaligned = 0;
    for (int round = 0; round < 8; ++round) {
        const theirs::wide wide{{1, 2, 3, 4, 5, 6, 7, 8}};
        EXPECT(ZP_OK, near.post(wide));
        const auto message = far.recv();
        HOLDS(GET(message->get<theirs::wide>()).numbers[7] == 8);
        const auto in_place = message->get_slice<theirs::wide>();
        if (!in_place) HOLDS(in_place.differs() == mismatch::alignment);
        misaligned += !in_place;
        EXPECT(ZP_OK, near.post(round));
        EXPECT(ZP_OK, far.recv());
    }
    HOLDS(misaligned > 0);
}

static void batches() {
    auto [near, far] = a_channel();
    const point one{1, 2};
    HOLDS(GET(near.post_all({zeroport::plain(one), zeroport::as_post("b")})) == 2);
    const std::vector<zp_post> more(5, zeroport::as_post("c"));
    HOLDS(GET(near.post_all(more, zeroport::no_wait)) == 5);
    HOLDS(GET(near.post_all({}, 1ms)) == 0);
    std::array<zeroport::message, 4> messages;
    HOLDS(GET(far.recv_all(messages)).size() == 4);
    HOLDS(messages[0].is<point>() && messages[1].text() == "b");
    HOLDS(GET(far.recv_all(messages, 1ms)).size() == 3);
    HOLDS(!messages[3]); /* what it held was released */
    EXPECT(ZP_OK, zeroport::release({messages.data(), 3}));
    HOLDS(!messages[0] && messages[2].bytes().empty());
    EXPECT(ZP_BAD_HANDLE, zeroport::release(messages));
    EXPECT(ZP_EMPTY, far.recv_all(messages, zeroport::no_wait));
    EXPECT(ZP_BAD_ARGUMENT, far.recv_all({}));
    EXPECT(ZP_OK, far.close());
    const auto refused = near.post_all(more);
    EXPECT(ZP_CLOSED, refused);
    HOLDS(refused.index() == 0);
}

static void loans() {
    auto [near, far] = a_channel();
    zeroport::loan room = GET(near.reserve_bytes(4));
    std::memcpy(room.bytes().data(), "loan", 4);
    EXPECT(ZP_LOANED, near.post_bytes("x"));
    EXPECT(ZP_TOO_LARGE, room.publish(5));
    EXPECT(ZP_OK, room.publish(3));
    EXPECT(ZP_BAD_HANDLE, room.publish(0));
    expect_text(far, "loa");

    auto typed = near.reserve<point>();
    typed->operator*() = {1, 2};
    (*typed)->y = 3;
    EXPECT(ZP_OK, typed->publish());
    HOLDS(typed->values().empty());
    HOLDS(GET(GET(far.recv()).get<point>()).y == 3);

    auto many = GET(near.reserve_slice<std::uint16_t>(100, zeroport::no_wait));
    many.values()[0] = 1;
    many.values()[1] = 2;
    EXPECT(ZP_TOO_LARGE, many.publish_first(101));
    EXPECT(ZP_OK, many.publish_first(2));
    HOLDS(GET(GET(far.recv()).get_slice<std::uint16_t>())[1] == 2);
    EXPECT(ZP_TOO_LARGE, near.reserve_slice<std::uint64_t>(SIZE_MAX / 8 + 1));

    /* One that goes gives its room back, and so does cancel. */
    { const auto gone = near.reserve_bytes(1, 1ms); }
    EXPECT(ZP_OK, GET(near.reserve_bytes(1)).cancel());
    zeroport::loan moved = GET(near.reserve_bytes(1));
    zeroport::loan to = std::move(moved);
    HOLDS(moved.bytes().empty());
    EXPECT(ZP_BAD_HANDLE, moved.cancel());
    to = zeroport::loan();
    EXPECT(ZP_OK, near.post_bytes("free"));
    expect_text(far, "free");
}

static void items() {
    auto [near, far] = a_channel();
    auto [mine, theirs] = a_channel();
    zeroport::buffer picture = GET(zeroport::buffer::make(8));
    GET(picture.write_as<std::uint32_t>())[1] = 42;
    EXPECT(ZP_OK, near.post_bytes("both", {std::move(theirs), std::move(picture)}));
    EXPECT(ZP_TRANSFERRED, theirs.post_bytes("x"));
    EXPECT(ZP_TRANSFERRED, picture.write());
    auto message = GET(far.recv());
    HOLDS(message.port_count() == 1 && message.buffer_count() == 1);
    HOLDS(message.take_ports<2>().differs() == mismatch::count);
    auto [reply] = GET(message.take_ports<1>());
    auto [seen] = GET(message.take_buffers<1>());
    HOLDS(message.port_count() == 0 && message.buffer_count() == 0);
    HOLDS(GET(seen.as<std::uint32_t>())[1] == 42);
    EXPECT(ZP_SEALED, seen.write());
    EXPECT(ZP_OK, reply.post_bytes("reply"));
    expect_text(mine, "reply");

    /* Refused: all is as before, and index says what it was about. */
    auto refused = near.post(1, {std::move(reply), std::move(near)});
    EXPECT(ZP_CARRIER, refused);
    HOLDS(refused.index() == 1);
    EXPECT(ZP_OK, reply.post_bytes("again"));
    expect_text(mine, "again");
    EXPECT(ZP_OK, message.release());
    refused = near.post_slice(std::vector<int>{1}, {std::move(far)});
    EXPECT(ZP_OTHER_END, refused);

    /* A longer list; and temporaries, which are closed if it fails. */
    std::vector<zeroport::port> others;
    std::vector<zeroport::item> list;
    for (int count = 0; count < 70; ++count) others.push_back(a_channel().port1);
    for (zeroport::port &other : others) list.emplace_back(std::move(other));
    EXPECT(ZP_OK, near.post(point{1, 2}, list, 10ms));
    EXPECT(ZP_OK, near.post_bytes("b", {GET(zeroport::buffer::make(1))}, zeroport::no_wait));
    auto many = GET(far.recv());
    std::vector<zeroport::port> taken;
    EXPECT(ZP_OK, many.take_ports(taken));
    HOLDS(taken.size() == 70 && taken[69]);
    auto with_buffer = GET(far.recv());
    std::vector<zeroport::buffer> buffers;
    EXPECT(ZP_OK, with_buffer.take_buffers(buffers));
    HOLDS(buffers.size() == 1 && GET(buffers[0].bytes()).size() == 1);
    EXPECT(ZP_OK, with_buffer.take_buffers(buffers)); /* no more */
    HOLDS(buffers.size() == 1);
    auto room = GET(near.reserve<point>());
    *room = {5, 6};
    EXPECT(ZP_OK, room.publish({std::move(taken[0])}));
    HOLDS(GET(far.recv()).port_count() == 1);
}

static void buffers() {
    zeroport::buffer buffer = GET(zeroport::buffer::make(10));
    HOLDS(GET(buffer.bytes()).size() == 10 && GET(buffer.bytes())[9] == std::byte{0});
    GET(buffer.write())[0] = std::byte{7};
    HOLDS(buffer.as<std::uint64_t>().differs() == mismatch::size);
    HOLDS(buffer.write_as<std::uint64_t>().differs() == mismatch::size);
    HOLDS(GET(buffer.as<std::uint8_t>())[0] == 7);
    EXPECT(ZP_OK, buffer.seal());
    EXPECT(ZP_SEALED, buffer.write());
    EXPECT(ZP_SEALED, buffer.write_as<std::uint8_t>());
    zeroport::buffer copy = GET(buffer.copy());
    HOLDS(GET(copy.write())[0] == std::byte{7});
    zeroport::buffer moved = std::move(buffer);
    HOLDS(!buffer && moved);
    EXPECT(ZP_BAD_HANDLE, buffer.bytes());
    EXPECT(ZP_BAD_HANDLE, buffer.copy());
    EXPECT(ZP_BAD_HANDLE, buffer.seal());
    EXPECT(ZP_OK, moved.close());
    EXPECT(ZP_BAD_HANDLE, moved.close());
    const auto huge = zeroport::buffer::make(SIZE_MAX);
    HOLDS(!huge && huge.status() != ZP_INTERNAL);
    HOLDS(huge.status() != ZP_SYSTEM || huge.errno_value() != 0);
}

/* Any order of destruction: the rest of a port goes with the last of its messages and loans. */
static void outliving() {
    auto [near, far] = a_channel();
    EXPECT(ZP_OK, near.post_bytes("held"));
    EXPECT(ZP_OK, near.post_bytes("too"));
    std::optional<zeroport::message> one = GET(far.recv()), other = GET(far.recv());
    EXPECT(ZP_BORROWED, far.close());
    HOLDS(static_cast<bool>(far));
    const zeroport::port_ref ref = far;
    { const zeroport::port goes = std::move(far); }
    EXPECT(ZP_CLOSED, near.post_bytes("x"));
    EXPECT(ZP_CLOSED, near.peer_state());
    HOLDS(one->text() == "held" && other->text() == "too");
    EXPECT(ZP_CLOSED, zeroport::port_ref(ref).peer_state()); /* it is there */
    one.reset();
    EXPECT(ZP_CLOSED, ref.peer_state());
    other.reset();
    EXPECT(ZP_FREED, ref.peer_state()); /* it has gone */

    auto [left, right] = a_channel();
    const zeroport::port_ref carrier = left;
    std::optional<zeroport::loan> room = GET(left.reserve_bytes(8));
    EXPECT(ZP_LOANED, left.close());
    left = zeroport::port();
    EXPECT(ZP_CLOSED, right.recv());
    std::memset(room->bytes().data(), 1, 8);
    EXPECT(ZP_CLOSED, room->publish(8));
    room.reset();
    right = zeroport::port(); /* something goes, so what is left goes, too */
    EXPECT(ZP_FREED, carrier.peer_state());
}

/* Whoever looks at a port at the wrong moment makes it busy. */
static zp_status recv_in_spite(zeroport::port_ref port) {
    for (;;) {
        const zp_status status = port.recv().status();
        if (status != ZP_BUSY) return status;
    }
}

static void wait_until_busy(zeroport::port_ref port) {
    while (port.max_payload().status() != ZP_BUSY) std::this_thread::yield();
}

/* What goes while another thread waits on its port goes later. */
static void elsewhere_at_once() {
    zeroport::channel_options options;
    options.wait = ZP_WAIT_SLEEP;
    auto [near, far] = GET(zeroport::make_channel(options));
    const zeroport::port_ref ref = far;
    EXPECT(ZP_OK, near.post_bytes("one"));
    std::optional<zeroport::message> one = GET(far.recv());
    std::thread receiver([ref] { EXPECT(ZP_OK, recv_in_spite(ref)); });
    wait_until_busy(ref);
    one.reset();
    EXPECT(ZP_OK, near.post_bytes("two")); /* the receiver's message goes, and so does the first */
    receiver.join();
    EXPECT(ZP_OK, far.close());

    auto [here, there] = GET(zeroport::make_channel(options));
    const zeroport::port_ref waited = there;
    std::thread waiter([waited] { EXPECT(ZP_CLOSED, recv_in_spite(waited)); });
    wait_until_busy(waited);
    there = zeroport::port();
    waiter.join();
    here = zeroport::port(); /* something goes */
    EXPECT(ZP_FREED, waited.peer_state());
}

/* Threads whose ports go before their messages, all at once: nothing is left in the end. */
static void leftovers_of_many() {
    const auto leave = [](std::vector<zeroport::port_ref> &left) {
        for (int round = 0; round < 100; ++round) {
            auto [near, far] = a_channel();
            EXPECT(ZP_OK, near.post(round));
            const auto held = GET(far.recv());
            left.emplace_back(far);
            EXPECT(ZP_OK, near.close()); /* so that the message is the last thing that goes */
            far = zeroport::port();
            HOLDS(GET(held.get<int>()) == round);
        }
    };
    std::array<std::vector<zeroport::port_ref>, 4> left;
    std::vector<std::thread> threads;
    for (auto &of_one : left) threads.emplace_back([&] { leave(of_one); });
    for (std::thread &thread : threads) thread.join();
    for (const auto &of_one : left) {
        for (zeroport::port_ref port : of_one) EXPECT(ZP_FREED, port.peer_state());
    }
}

/* One thread waits on a port, and another one posts on it. */
static void halves() {
    auto [near, far] = a_channel();
    auto [sender, receiver] = GET(near.split());
    HOLDS(!near && sender && receiver);
    EXPECT(ZP_HALF, sender.recv());
    EXPECT(ZP_HALF, receiver.post(1));
    std::thread thread([&half = receiver] { HOLDS(GET(GET(half.recv()).get<int>()) == 2); });
    EXPECT(ZP_OK, sender.post(1));
    HOLDS(GET(GET(far.recv()).get<int>()) == 1);
    EXPECT(ZP_OK, far.post(2));
    thread.join();
    EXPECT(ZP_HALF, zeroport::port::join(std::move(receiver), std::move(sender)));
    near = GET(zeroport::port::join(std::move(sender), std::move(receiver)));
    HOLDS(!sender && !receiver);
    EXPECT(ZP_OK, near.post_bytes("whole"));
    expect_text(far, "whole");
    EXPECT(ZP_BAD_HANDLE, sender.split());
}

static void moves_and_misuse() {
    auto [near, far] = a_channel();
    zeroport::port moved = std::move(near);
    HOLDS(!near && moved && zeroport::port_ref(moved) != near);
    EXPECT(ZP_BAD_HANDLE, near.post(1));
    EXPECT(ZP_BAD_HANDLE, near.recv());
    EXPECT(ZP_BAD_HANDLE, near.reserve<int>());
    EXPECT(ZP_BAD_HANDLE, near.close());
    EXPECT(ZP_BAD_HANDLE, near.detach(ZP_TRUST_TRUSTED));
    zeroport::port &same = moved;
    moved = std::move(same); /* to itself */
    HOLDS(static_cast<bool>(moved));
    near = std::move(moved);
    EXPECT(ZP_OK, near.post_bytes("moved"));
    const zeroport::port_ref old = near;
    zeroport::message message = GET(far.recv());
    zeroport::message second = std::move(message);
    HOLDS(!message && message.bytes().empty() && message.text().empty() &&
          second.text() == "moved");
    HOLDS(message.get<int>().differs() == mismatch::type && message.port_count() == 0);
    EXPECT(ZP_BAD_HANDLE, message.release());
    HOLDS((message.take_ports<1>().differs() == mismatch::count));
    std::vector<zeroport::port> none;
    EXPECT(ZP_BAD_HANDLE, message.take_ports(none));
    message = std::move(second);
    EXPECT(ZP_OK, message.release());
    HOLDS(!message);
    near = a_channel().port1; /* the one before is closed */
    EXPECT(ZP_FREED, zeroport::port_ref(old).post(1));
    EXPECT(ZP_CLOSED, far.recv());

    /* By hand, and back. */
    const zp_port raw = far.take_handle();
    HOLDS(!far);
    zeroport::port again(raw);
    HOLDS(again.handle().id == raw.id);
    EXPECT(ZP_OK, zp_port_close(raw));
    EXPECT(ZP_FREED, again.close());
}

static void a_port_itself() {
    auto [near, far] = a_channel();
    HOLDS(GET(near.info()).is_trusted == 1 && GET(near.info()).max_in_ring > 0);
    HOLDS(GET(near.max_payload()) == GET(near.info()).max_payload);
    EXPECT(ZP_OK, near.set_wait(ZP_WAIT_SLEEP));
    EXPECT(ZP_BAD_ARGUMENT, near.set_wait(9));
    EXPECT(ZP_OK, near.peer_state());
    pollfd poll_fd{GET(near.fd()), POLLIN, 0};
    EXPECT(ZP_OK, near.arm());
    HOLDS(poll(&poll_fd, 1, 0) == 0);
    EXPECT(ZP_OK, far.post(1));
    HOLDS(poll(&poll_fd, 1, 1000) == 1);
    EXPECT(ZP_READY, near.arm());
    EXPECT(ZP_OK, near.disarm());
    EXPECT(ZP_OK, near.shutdown());
    EXPECT(ZP_OK, far.recv(zeroport::no_wait).status() == ZP_CLOSED ? ZP_OK : ZP_INTERNAL);
    EXPECT(ZP_OK, zeroport::port_ref(far).close());
    EXPECT(ZP_FREED, far.close());
}

static void descriptors() {
    auto [near, far] = a_channel(ZP_TRUST_UNTRUSTED);
    EXPECT(ZP_OK, near.post(5));
    zeroport::detached_port out = GET(far.detach(ZP_TRUST_UNTRUSTED));
    HOLDS(!far && !out.fds.empty() && fcntl(out.fds[0].get(), F_GETFD) == FD_CLOEXEC);
    zeroport::port back = GET(zeroport::port::attach(std::move(out), ZP_TRUST_UNTRUSTED));
    HOLDS(GET(GET(back.recv()).get<int>()) == 5);
    EXPECT(ZP_BAD_ARGUMENT, back.detach(9));
    auto lost = GET(back.detach(ZP_TRUST_UNTRUSTED));
    lost.fds.clear();
    lost.fds.emplace_back();
    EXPECT(ZP_BAD_ARGUMENT, zeroport::port::attach(std::move(lost), ZP_TRUST_UNTRUSTED));
    EXPECT(ZP_LOST, near.recv());

    zeroport::descriptor one(dup(0)), two = std::move(one);
    const int fd = two.get();
    HOLDS(one.get() == -1 && fd >= 0);
    two = zeroport::descriptor();
    HOLDS(fcntl(fd, F_GETFD) == -1 && errno == EBADF);
}

static void errors() {
    auto [near, far] = a_channel();
#if ZEROPORT_EXCEPTIONS
    try {
        near.try_recv().value();
        HOLDS(false);
    } catch (const zeroport::error &error) {
        HOLDS(error.status() == ZP_EMPTY && error.what() == std::string_view("nothing there yet"));
    }
    int thrown = 0;
    try {
        (void)near.try_recv()->text();
    } catch (const std::exception &) { ++thrown; }
    try {
        EXPECT(ZP_OK, near.close());
        near.post(1).value();
    } catch (const zeroport::error &) { ++thrown; }
    try {
        zeroport::spawn({"/no/such/program"}).value();
    } catch (const zeroport::error &error) {
        HOLDS(error.errno_value() == ENOENT);
        HOLDS(std::strstr(error.what(), "No such file") != nullptr);
        ++thrown;
    }
    HOLDS(thrown == 3);
#endif
    const zeroport::result<int> none = zeroport::outcome(ZP_OK); /* a value is missing */
    HOLDS(none.status() == ZP_INTERNAL);
}

static void names() {
    auto [requester, receiver] = a_channel();
    const point where{3, 4};
    EXPECT(ZP_OK, requester.post_named("moved", zeroport::plain(where), {}, zeroport::no_wait));
    {
        const auto message = receiver.recv().value();
        const auto named = message.open().value();
        HOLDS(named.name() == "moved" && !named.is_request());
        HOLDS(named.get<point>().value().y == 4 && named.get_slice<point>()->size() == 1);
        HOLDS(named.get<float>().differs() == mismatch::type);
    }
    EXPECT(ZP_TOO_LARGE, requester.post_named(std::string(256, 'n'), zeroport::as_post("text")));

    auto [kept, gone] = a_channel();
    zeroport::port replies =
        requester.invoke("sum", zeroport::as_post("20 22"), {std::move(gone)}).value();
    {
        auto message = receiver.recv().value();
        HOLDS(message.open()->is_request() && message.open()->text() == "20 22");
        auto [reply, given] = message.take_ports<2>().value();
        EXPECT(ZP_OK, reply.post(42));
        EXPECT(ZP_OK, given.post_bytes("here"));
    }
    HOLDS(replies.recv()->get<int>().value() == 42);
    EXPECT(ZP_CLOSED, replies.recv());
    HOLDS(kept.recv()->text() == "here");

    auto [one, other] = a_channel();
    const auto refused = one.invoke("sum", zeroport::as_post(""), {std::move(other)});
    EXPECT(ZP_OTHER_END, refused);
    HOLDS(refused.index() == 0);
    EXPECT(ZP_OK, requester.post_bytes("without"));
    EXPECT(ZP_UNNAMED, receiver.recv()->open());
}

int main() {
    alarm(55); /* whoever is stuck ends before the test that waits for it */
    HOLDS(elsewhere() == ZP_VERSION && zeroport::version() == ZP_VERSION);
    tags();
    patience();
    spans();
    posts();
    mismatches();
    batches();
    loans();
    items();
    buffers();
    outliving();
    elsewhere_at_once();
    leftovers_of_many();
    halves();
    names();
    moves_and_misuse();
    a_port_itself();
    descriptors();
    errors();
    return 0;
}
