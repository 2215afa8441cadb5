/* Sets and loops from C++: what they tell, whose the ports are, and what handlers may do. */
#include "expect.hpp"

#include <poll.h>

#include <thread>

using namespace std::chrono_literals;
using zeroport::event_loop;
using zeroport::message_ref;
using zeroport::port_ref;
using zeroport::port_set;

static bool is_readable(int fd) {
    pollfd poll_fd{fd, POLLIN, 0};
    return poll(&poll_fd, 1, 0) == 1;
}

static void sets() {
    port_set set = GET(port_set::make());
    auto [near, far] = a_channel();
    auto [other, there] = a_channel();
    int user = 0;
    const port_ref member = GET(set.insert(std::move(near), &user));
    HOLDS(!near && member);
    const port_ref second = GET(set.insert(std::move(other)));
    zeroport::port same(second.handle());
    EXPECT(ZP_MEMBER, set.insert(std::move(same)));
    HOLDS(same.take_handle().id == second.handle().id); /* it stayed where it was */
    EXPECT(ZP_BAD_HANDLE, set.insert(std::move(near)));

    std::array<zeroport::event, 8> events;
    EXPECT(ZP_EMPTY, set.wait(events, zeroport::no_wait));
    EXPECT(ZP_EMPTY, set.wait(events, 1ms));
    EXPECT(ZP_OK, far.post(1));
    EXPECT(ZP_OK, far.post(2));
    const auto told = set.wait(events);
    HOLDS(told->size() == 2 && (*told)[0].kind == ZP_EVENT_MESSAGE);
    for (zeroport::event &event : *told) {
        HOLDS(event.user == &user && event.port == member && event.status == ZP_OK);
        EXPECT(ZP_OK, event.port.post(GET(event.message.get<int>()) * 10));
    }
    HOLDS(GET(GET(far.recv()).get<int>()) == 10 && GET(GET(far.recv()).get<int>()) == 20);
    EXPECT(ZP_BORROWED, set.remove(member));
    EXPECT(ZP_BORROWED, set.close());

    /* The next wait releases what the events held. */
    EXPECT(ZP_OK, set.pause(member));
    EXPECT(ZP_OK, far.post(3));
    EXPECT(ZP_EMPTY, set.wait(events, zeroport::no_wait));
    EXPECT(ZP_OK, set.resume(member));
    zeroport::port back = GET(set.remove(member));
    EXPECT(ZP_STRANGER, set.remove(member));
    HOLDS(GET(GET(back.recv()).get<int>()) == 3);

    const int fd = GET(set.fd());
    EXPECT(ZP_OK, set.arm());
    HOLDS(!is_readable(fd));
    EXPECT(ZP_OK, there.post(4));
    HOLDS(is_readable(fd));
    HOLDS(GET(set.wait(events)).size() == 1);
    EXPECT(ZP_OK, there.post(5));
    EXPECT(ZP_READY, set.arm());
    EXPECT(ZP_OK, there.close());
    EXPECT(ZP_OK, set.set_wait(ZP_WAIT_SLEEP));
    bool is_closed = false;
    while (!is_closed) {
        for (zeroport::event &event : GET(set.wait(events))) {
            if (event.kind == ZP_EVENT_CLOSED) is_closed = event.status == ZP_CLOSED;
        }
    }
    EXPECT(ZP_FREED, port_ref(second).post(1));
    EXPECT(ZP_OK, set.wake());
    HOLDS(GET(set.wait(events)).empty());

    /* Moved; and gone before its messages: they stay as they are, and the rest goes with them. */
    const port_ref again = GET(set.insert(std::move(back)));
    port_set moved = std::move(set);
    EXPECT(ZP_BAD_HANDLE, set.wake());
    EXPECT(ZP_BAD_HANDLE, set.wait(events, zeroport::no_wait));
    EXPECT(ZP_OK, far.post(5));
    HOLDS(GET(moved.wait(events)).size() == 1);
    const zp_set raw = moved.handle();
    moved = port_set();
    HOLDS(GET(events[0].message.get<int>()) == 5);
    EXPECT(ZP_OK, far.post(6)); /* the set is there */
    events[0] = zeroport::event();
    EXPECT(ZP_FREED, zeroport::outcome(zp_set_wake(raw)));
    EXPECT(ZP_FREED, again.peer_state());
    EXPECT(ZP_CLOSED, far.post(7));
}

/* Counts how often it is destroyed as the last of its kind: that is what removed means. */
struct life {
    int *ends;
    explicit life(int &counter) : ends(&counter) {}
    life(life &&other) noexcept : ends(std::exchange(other.ends, nullptr)) {}
    ~life() {
        if (ends != nullptr) ++*ends;
    }
};

static void loops() {
    event_loop loop = GET(event_loop::make());
    EXPECT(ZP_OK, loop.run()); /* no port is left */
    EXPECT(ZP_FINISHED, loop.run_once());
    auto [near, far] = a_channel();
    int ends = 0, closes = 0;
    zp_status reason = ZP_OK;
    const port_ref member = GET(loop.insert(
        std::move(near),
        [life = life(ends)](port_ref port, message_ref &message) {
            HOLDS(*life.ends == 0);
            EXPECT(ZP_OK, port.post_bytes(message.bytes()));
        },
        [&](port_ref port, zp_status status) {
            EXPECT(ZP_FREED, port.post(1));
            ++closes;
            reason = status;
        },
        [](port_ref, const zeroport::outcome &) {}));
    HOLDS(!near && ends == 0);
    EXPECT(ZP_OK, far.post_bytes("echo"));
    EXPECT(ZP_OK, loop.run_once());
    HOLDS(GET(far.recv()).text() == "echo");
    EXPECT(ZP_OK, loop.run_ready());
    EXPECT(ZP_OK, loop.run_for(1ms));
    EXPECT(ZP_OK, loop.wake());
    EXPECT(ZP_OK, loop.run_once());
    EXPECT(ZP_OK, loop.stop());
    EXPECT(ZP_FINISHED, loop.run_once());
    EXPECT(ZP_OK, loop.set_wait(ZP_WAIT_SLEEP));

    EXPECT(ZP_OK, loop.run_ready()); /* hears of the wake, too */
    EXPECT(ZP_OK, loop.arm());
    HOLDS(!is_readable(GET(loop.fd())));
    EXPECT(ZP_OK, loop.pause(member));
    EXPECT(ZP_OK, far.post_bytes("later"));
    EXPECT(ZP_OK, loop.run_ready());
    EXPECT(ZP_EMPTY, far.try_recv());
    EXPECT(ZP_OK, loop.resume(member));
    EXPECT(ZP_READY, loop.arm());
    EXPECT(ZP_OK, loop.run_ready());
    HOLDS(GET(far.recv()).text() == "later");

    /* Taken out, which ends the handlers; and in again, with one that moves only. */
    zeroport::port back = GET(loop.remove(member));
    HOLDS(ends == 1 && closes == 0);
    EXPECT(ZP_STRANGER, loop.remove(member));
    auto on_close = [&](port_ref, zp_status status) {
        ++closes;
        reason = status;
    };
    GET(loop.insert(std::move(back), nullptr, on_close));
    EXPECT(ZP_BAD_HANDLE,
           loop.insert(std::move(back), [life = life(ends)](port_ref, message_ref &) {}));
    HOLDS(ends == 2); /* refused: the handlers are destroyed */
    EXPECT(ZP_OK, far.close());
    EXPECT(ZP_OK, loop.run());
    HOLDS(closes == 1 && reason == ZP_CLOSED);

    /* The rest goes with the loop. */
    auto [left, right] = a_channel();
    GET(loop.insert(std::move(left), [life = life(ends)](port_ref, message_ref &) {}));
    event_loop moved = std::move(loop);
    EXPECT(ZP_BAD_HANDLE, loop.run());
    moved = event_loop();
    HOLDS(ends == 3);
    EXPECT(ZP_CLOSED, right.recv());
}

/* What a handler may do to its own port, message and loop. */
static void inside() {
    auto loop = std::make_unique<event_loop>(GET(event_loop::make()));
    auto [near, far] = a_channel();
    auto [carried, mine] = a_channel();
    int ends = 0;
    EXPECT(ZP_OK, far.post(1, {std::move(carried)}));
    EXPECT(ZP_OK, far.post(2)); /* never told */
    GET(loop->insert(std::move(near), [&, life = life(ends)](port_ref port, message_ref &message) {
        HOLDS(GET(message.get<int>()) == 1);
        zeroport::port reply = std::move(GET(message.take_ports<1>())[0]);
        EXPECT(ZP_OK, reply.post_bytes("from inside"));
        EXPECT(ZP_OK, message.release());
        HOLDS(message.bytes().empty());
        EXPECT(ZP_BUSY, loop->run());
        EXPECT(ZP_BUSY, loop->close());
        EXPECT(ZP_OK, port.close());
        HOLDS(ends == 0); /* not while a handler runs */
    }));
    EXPECT(ZP_OK, loop->run());
    HOLDS(ends == 1 && GET(mine.recv()).text() == "from inside");
    EXPECT(ZP_CLOSED, far.post(3));

    /* The loop goes inside of its own handler: that ends the run, and then the loop goes. */
    auto [left, right] = a_channel();
    EXPECT(ZP_OK, right.post(1));
    EXPECT(ZP_OK, right.post(2));
    const zp_loop raw = loop->handle();
    int told = 0;
    GET(loop->insert(std::move(left), [&, life = life(ends)](port_ref, message_ref &) {
        loop.reset();
        ++told;
    }));
    EXPECT(ZP_OK, loop->run());
    HOLDS(told == 1 && ends == 2 && !loop);
    EXPECT(ZP_FREED, zeroport::outcome(zp_loop_wake(raw)));
}

/* Another thread ends the run. */
static void stopped_elsewhere() {
    event_loop loop = GET(event_loop::make());
    auto [near, far] = a_channel();
    GET(loop.insert(std::move(near), [](port_ref, message_ref &) {}));
    std::thread stopper([&loop] { EXPECT(ZP_OK, loop.stop()); });
    EXPECT(ZP_OK, loop.run());
    stopper.join();
}

#if ZEROPORT_EXCEPTIONS
struct surprise {
    int number;
};

template <class Run>
static int thrown_by(Run run) {
    try {
        (void)run();
    } catch (const surprise &thrown) { return thrown.number; }
    return 0;
}

/* What a handler throws does not cross C: the run that called it throws it. */
static void throwing() {
    event_loop loop = GET(event_loop::make()), outer = GET(event_loop::make());
    auto [near, far] = a_channel();
    auto [other, there] = a_channel();
    int ends = 0;
    const auto throws = [](port_ref, message_ref &message) {
        throw surprise{GET(message.get<int>())};
    };
    GET(loop.insert(
        std::move(near),
        [throws, life = life(ends)](port_ref port, message_ref &message) { throws(port, message); },
        [](port_ref, zp_status) { throw surprise{99}; }));
    for (int number = 1; number <= 3; ++number) EXPECT(ZP_OK, far.post(number));
    HOLDS(thrown_by([&] { return loop.run(); }) == 1);
    HOLDS(thrown_by([&] { return loop.run_once(); }) == 2); /* its port is a member still */
    HOLDS(thrown_by([&] { return loop.run_for(1s); }) == 3);
    EXPECT(ZP_OK, loop.run_ready()); /* nothing of it stays behind */

    /*
     * A loop that runs inside of another one's handler: it goes through both, or is caught between.
     */
    EXPECT(ZP_OK, far.post(4));
    EXPECT(ZP_OK, there.post(0));
    int between = 0;
    GET(outer.insert(std::move(other), [&](port_ref, message_ref &) {
        between = thrown_by([&] { return loop.run(); });
        throw surprise{between + 1};
    }));
    HOLDS(thrown_by([&] { return outer.run(); }) == 5 && between == 4);

    HOLDS(ends == 0);
    EXPECT(ZP_OK, far.close());
    HOLDS(thrown_by([&] { return loop.run(); }) == 99 && ends == 1);
}
#endif

int main() {
    alarm(55); /* whoever is stuck ends before the test that waits for it */
    HOLDS(elsewhere() == ZP_VERSION);
    sets();
    loops();
    inside();
    stopped_elsewhere();
#if ZEROPORT_EXCEPTIONS
    throwing();
#endif
    return 0;
}
